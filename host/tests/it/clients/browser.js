// Run by browser.rs with a port and protocol versions, with mqtt in NODE_PATH: opens Chromium on a page that has mqttjs_cases.js
// run with each version, and prints what it prints, with `version <version>` before it.

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");

const [port, ...versions] = process.argv.slice(2);
const library = path.join(path.dirname(require.resolve("mqtt/package.json")), "dist", "mqtt.min.js");
const scripts = {
    "/mqtt.js": fs.readFileSync(library),
    // In a function, as the names of a page's scripts are the same for all of them.
    "/cases.js": `(() => {${fs.readFileSync(path.join(__dirname, "mqttjs_cases.js"))}})();`,
};

// What the cases have in Node and a page has not.
const page = `<!doctype html><script src="/mqtt.js"></script><script>
    const version = new URLSearchParams(location.search).get("version");
    const said = [];
    const say = (text) => said.push(text + "\\n");
    const done = async () => {
        const next = await (await fetch("/done", { method: "POST", body: said.join("") })).text();
        if (next !== "") location.search = "?version=" + next;
    };
    const same = (got, expected) => {
        if (JSON.stringify(got) !== JSON.stringify(expected)) throw new Error(JSON.stringify({ got, expected }));
    };
    const ok = (holds) => same(Boolean(holds), true);
    const modules = { mqtt, "node:assert/strict": { equal: same, deepEqual: same, ok } };
    globalThis.require = (name) => modules[name];
    globalThis.process = { argv: ["", "", "${port}", version, "ws"], exit: done };
    console.log = (...words) => say(words.join(" "));
    console.error = (error) => say("error: " + (error.stack ?? error));
    onerror = (what) => {
        say("error: " + what);
        done();
    };
    say("version " + version);
</script><script src="/cases.js"></script>`;

// A browser that ends by itself, or asks for no page, is not what is tested: another one is opened, with a new profile.
const BROWSERS_MAX = 3;
const PATIENCE = 60_000;
let browser;
let seen = false; // It has asked for a page.
const kill = () => {
    try {
        process.kill(-browser.pid, "SIGKILL"); // With all that it has started.
    } catch {
        // It has ended.
    }
};
const open = (number) => {
    const { port: own } = server.address();
    const quiet = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run";
    const flags = `--headless --no-sandbox --disable-gpu --disable-dev-shm-usage ${quiet}`.split(" ");
    const url = `http://127.0.0.1:${own}/?version=${versions[0]}`;
    const profile = fs.mkdtempSync(path.join(os.tmpdir(), "host-it-browser-"));
    const stdio = ["ignore", "ignore", "pipe"];
    browser = spawn("chromium", [...flags, `--user-data-dir=${profile}`, url], { stdio, detached: true });
    let errors = "";
    browser.stderr.on("data", (some) => (errors += some));
    const late = setTimeout(() => seen || kill(), PATIENCE);
    browser.on("exit", (code, signal) => {
        clearTimeout(late);
        kill();
        try {
            fs.rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
        } catch (error) {
            console.error(`what the browser wrote stays: ${error}`);
        }
        if (versions.length > 0) console.error(`chromium ${number} has ended with ${code ?? signal}: ${errors}`);
        if (versions.length > 0 && !seen && number < BROWSERS_MAX) open(number + 1);
        else process.exit(versions.length);
    });
};

const server = http.createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    let body = "";
    request.on("data", (some) => (body += some));
    request.on("end", () => {
        if (url.pathname === "/done") {
            process.stdout.write(body);
            versions.shift();
            response.end(versions[0] ?? "");
            if (versions.length === 0) kill();
            return;
        }
        const script = scripts[url.pathname];
        seen = true;
        response.writeHead(200, { "Content-Type": `text/${script ? "javascript" : "html"}; charset=utf-8` });
        response.end(script ?? page);
    });
});
server.listen(0, "127.0.0.1", () => open(1));
// Before whoever waits for us gives up, so that the browser does not stay.
setTimeout(() => {
    console.error(`the versions ${versions} are not done in time`);
    seen = true;
    kill();
}, 290_000).unref();
