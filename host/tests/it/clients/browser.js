// Run by browser.rs, with mqtt in NODE_PATH. Prints the port at 127.0.0.1 where it has pages, and is then told by a line of JSON by
// which `ways` to come to a server (see mqttjs_cases.js) and which file has its `certificate`. Opens Chromium, which trusts that, on
// a page that has mqttjs_cases.js run; then on one of another origin, which looks whether it is let in. Prints what these print.

const { createHash, X509Certificate } = require("node:crypto");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");
const readline = require("node:readline");

const library = path.join(path.dirname(require.resolve("mqtt/package.json")), "dist", "mqtt.min.js");
const scripts = {
    "/mqtt.js": fs.readFileSync(library),
    // In a function, as the names of a page's scripts are the same for all of them.
    "/cases.js": `(() => {${fs.readFileSync(path.join(__dirname, "mqttjs_cases.js"))}})();`,
    "/other.js": "Promise.all(ways.map(tryToConnect)).then(process.exit);",
};
let told;

// What the cases have in Node and a page has not.
const page = (script) => `<!doctype html><script src="/mqtt.js"></script><script>
    const ways = ${JSON.stringify(told.ways)};
    const said = [];
    const say = (text) => said.push(text + "\\n");
    const done = async () => {
        const next = await (await fetch("/done", { method: "POST", body: said.join("") })).text();
        if (next !== "") location = next;
    };
    const same = (got, expected) => {
        if (JSON.stringify(got) !== JSON.stringify(expected)) throw new Error(JSON.stringify({ got, expected }));
    };
    const ok = (holds) => same(Boolean(holds), true);
    const modules = { mqtt, "node:assert/strict": { equal: same, deepEqual: same, ok } };
    globalThis.require = (name) => modules[name];
    globalThis.process = { argv: ["", "", JSON.stringify(ways)], exit: done };
    console.log = (...words) => say(words.join(" "));
    console.error = (...words) => say("error: " + words.map((word) => word.stack ?? word).join(" "));
    onerror = (what) => {
        say("error: " + what);
        done();
    };
    const tryToConnect = ({ name, host, port }) =>
        new Promise((resolve) => {
            const socket = new WebSocket(name + "://" + host + ":" + port + "/mqtt", "mqtt");
            socket.onopen = () => resolve(say(name + " from another origin: A CONNECTION"));
            socket.onerror = () => resolve(say(name + " from another origin: no connection"));
        });
</script><script src="${script}"></script>`;

// The pages that are to be shown, one after the other, and the URL of the next one: each has another origin.
const pages = ["/cases", "/other"];
const next = () => {
    const name = { "/cases": "127.0.0.1", "/other": "localhost" }[pages[0]];
    return name ? `http://${name}:${server.address().port}${pages[0]}` : "";
};

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
    const quiet = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run";
    const flags = `--headless --no-sandbox --disable-gpu --disable-dev-shm-usage ${quiet}`.split(" ");
    const key = new X509Certificate(fs.readFileSync(told.certificate)).publicKey.export({ type: "spki", format: "der" });
    const trusted = `--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`;
    const profile = fs.mkdtempSync(path.join(os.tmpdir(), "host-it-browser-"));
    const stdio = ["ignore", "ignore", "pipe"];
    browser = spawn("chromium", [...flags, trusted, `--user-data-dir=${profile}`, next()], { stdio, detached: true });
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
        if (pages.length > 0) console.error(`chromium ${number} has ended with ${code ?? signal}: ${errors}`);
        if (pages.length > 0 && !seen && number < BROWSERS_MAX) open(number + 1);
        else process.exit(pages.length);
    });
};

const server = http.createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    let body = "";
    request.on("data", (some) => (body += some));
    request.on("end", () => {
        if (url.pathname === "/done") {
            process.stdout.write(body);
            pages.shift();
            response.end(next());
            if (pages.length === 0) kill();
            return;
        }
        const script = scripts[url.pathname];
        seen = true;
        response.writeHead(200, { "Content-Type": `text/${script ? "javascript" : "html"}; charset=utf-8` });
        response.end(script ?? page(`${url.pathname}.js`));
    });
});
server.listen(0, "127.0.0.1", () => {
    console.log(server.address().port);
    const lines = readline.createInterface({ input: process.stdin });
    lines.once("line", (line) => {
        told = JSON.parse(line);
        open(1);
    });
    // Whoever has not told us anything has failed.
    lines.once("close", () => told ?? process.exit(1));
});
// Before whoever waits for us gives up, so that the browser does not stay.
setTimeout(() => {
    console.error(`the pages ${pages} are not done in time`);
    seen = true;
    kill();
}, 290_000).unref();
