// Run by mqttjs.rs with a list of ways to come to a server as JSON, with mqtt in NODE_PATH; and by browser.js in a page, which has
// these, too. Goes through all cases by each of them, at one time.
//
// A way has its `name` (tcp, tls, ws, wss or unix), the protocol `version` (3, 4 or 5), and where the server is: `host` and `port`,
// or the `path` of a Unix socket. Where there is TLS it has the file of the `authority` to trust, and those of the `certificate`
// and the `private_key` to show, if there is one to be shown; in a page, what the browser has counts.
//
// Prints a line for each case, `<name> <version> <case> ok` or `<name> <version> <case> FAILED`; what went wrong goes to stderr.

const assert = require("node:assert/strict");
const mqtt = require("mqtt");

const PATIENCE = 60_000;

const within = (what, promise) => {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not within ${PATIENCE} ms: ${what}`)), PATIENCE);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// One of those to come by, which nobody else comes by: its clients and its topics have its name.
class Way {
    constructor({ name, version, host, port, path = "/mqtt", authority, certificate, private_key: key }) {
        Object.assign(this, { version, v5: version === 5, name: `${name} ${version}`, prefix: `${name}-${version}/` });
        const protocol = { tcp: "mqtt", tls: "mqtts", unix: "mqtt+unix" }[name] ?? name;
        const protocolId = version === 3 ? "MQIsdp" : "MQTT";
        this.options = { protocol, host, port, path, protocolVersion: version, protocolId, reconnectPeriod: 0 };
        const files = Object.entries({ ca: authority, cert: certificate, key }).filter(([, file]) => file !== undefined);
        for (const [option, file] of files) this.options[option] = require("node:fs").readFileSync(file);
    }

    connect(name, options) {
        return Client.connect(this, name, options);
    }

    // The whole name of a topic, unless that is left to an alias, or of a filter.
    topic(topic) {
        return topic && topic.replace(/^(\$share\/group\/)?/, `$1${this.prefix}`);
    }

    async run() {
        for (const [name, run] of Object.entries({ ...cases, ...(this.v5 && casesV5), ...(this.options.ca && casesTls) })) {
            try {
                await run(this);
                console.log(this.name, name, "ok");
            } catch (error) {
                console.error(this.name, name, error);
                console.log(this.name, name, "FAILED");
            }
        }
    }
}

class Client {
    static async connect(way, name, { persistent = false, will, ...options } = {}) {
        const client = new Client();
        client.way = way;
        client.messages = [];
        client.waiting = [];
        client.sentTopics = [];
        const properties = way.v5 ? { sessionExpiryInterval: persistent ? 100 : 0, ...options.properties } : undefined;
        client.mqtt = mqtt.connect({
            ...way.options,
            clientId: `js-${way.prefix}${name}`,
            clean: !persistent,
            will: will && { ...will, topic: way.topic(will.topic) },
            ...options,
            properties,
        });
        client.mqtt.on("message", (topic, payload, packet) => client.arrived({ topic, payload, packet }));
        client.mqtt.on("packetsend", (packet) => {
            if (packet.cmd === "publish") client.sentTopics.push(packet.topic);
        });
        const connected = new Promise((resolve, reject) => {
            client.mqtt.once("connect", resolve);
            client.mqtt.once("error", reject);
            client.mqtt.once("close", () => reject(new Error("closed before CONNACK")));
        });
        const connack = await within("CONNACK", connected);
        client.sessionPresent = connack.sessionPresent;
        return client;
    }

    arrived(message) {
        const waiting = this.waiting.shift();
        if (waiting) waiting(message);
        else this.messages.push(message);
    }

    message() {
        if (this.messages.length > 0) return Promise.resolve(this.messages.shift());
        return within("a message", new Promise((resolve) => this.waiting.push(resolve)));
    }

    async texts(count) {
        const texts = [];
        while (texts.length < count) texts.push((await this.message()).payload.toString());
        return texts;
    }

    async subscribe(topic, qos) {
        const granted = await within("SUBACK", this.mqtt.subscribeAsync(this.way.topic(topic), { qos }));
        assert.deepEqual(granted.map((grant) => grant.qos), [qos]);
    }

    unsubscribe(topic) {
        return within("UNSUBACK", this.mqtt.unsubscribeAsync(this.way.topic(topic)));
    }

    publish(topic, payload, options) {
        return within("the end of a publish", this.mqtt.publishAsync(this.way.topic(topic), payload, options));
    }

    disconnect() {
        return within("the end", this.mqtt.endAsync());
    }

    // Without DISCONNECT.
    die() {
        this.mqtt.stream.destroy();
    }
}

const qos = (published) => async (way) => {
    const [subscriber, publisher] = [await way.connect("subscriber"), await way.connect("publisher")];
    for (const granted of [0, 1, 2]) {
        await subscriber.subscribe("js/+", granted);
        for (let number = 0; number < 20; number++) {
            await publisher.publish("js/x", `${granted} ${number}`, { qos: published });
        }
        for (let number = 0; number < 20; number++) {
            const { payload, packet } = await subscriber.message();
            assert.equal(payload.toString(), `${granted} ${number}`);
            assert.deepEqual([packet.qos, packet.retain], [Math.min(granted, published), false]);
        }
    }
    await subscriber.unsubscribe("js/+");
    await subscriber.disconnect();
    await publisher.disconnect();
};

const retain = async (way) => {
    const [publisher, subscriber] = [await way.connect("publisher"), await way.connect("subscriber")];
    for (const qos of [0, 1, 2]) {
        await publisher.publish("retain/x", `${qos}`, { qos, retain: true });
        await publisher.publish("retain/x", `${qos}!`, { qos: 1, retain: true });
        await subscriber.subscribe("retain/#", 2);
        const { payload, packet } = await subscriber.message();
        assert.deepEqual([payload.toString(), packet.retain], [`${qos}!`, true]);
        await subscriber.unsubscribe("retain/#");
    }
    await publisher.publish("retain/x", "", { qos: 1, retain: true });
    await subscriber.subscribe("retain/#", 2);
    await publisher.publish("retain/y", "live", { qos: 1 });
    assert.deepEqual(await subscriber.texts(1), ["live"]);
    await publisher.disconnect();
    await subscriber.disconnect();
};

const will = async (way) => {
    const observer = await way.connect("observer");
    await observer.subscribe("will/+", 2);
    for (const qos of [0, 1, 2]) {
        const mortal = await way.connect("mortal", { will: { topic: "will/x", payload: `gone ${qos}`, qos } });
        mortal.die();
        const { payload, packet } = await observer.message();
        assert.deepEqual([payload.toString(), packet.qos], [`gone ${qos}`, qos]);
    }
    const orderly = await way.connect("mortal", { will: { topic: "will/x", payload: "not to be seen", qos: 1 } });
    await orderly.disconnect();
    await observer.publish("will/end", "end", { qos: 1 });
    assert.deepEqual(await observer.texts(1), ["end"]);
    await observer.disconnect();
};

const resume = async (way) => {
    let keeper = await way.connect("keeper", { persistent: true });
    const publisher = await way.connect("publisher");
    assert.equal(keeper.sessionPresent, false);
    await keeper.subscribe("kept/+", 2);
    await keeper.disconnect();
    const numbers = Array.from({ length: 200 }, (_, number) => number);
    for (const number of numbers) await publisher.publish("kept/x", `${number}`, { qos: 1 + (number % 2) });
    keeper = await way.connect("keeper", { persistent: true });
    // MQTT 3.1 has no Session Present.
    assert.ok(keeper.sessionPresent || way.version === 3);
    const got = (await keeper.texts(200)).map(Number);
    // Order is kept for each QoS.
    for (const parity of [0, 1]) {
        const half = (list) => list.filter((number) => number % 2 === parity);
        assert.deepEqual(half(got), half(numbers));
    }
    await keeper.disconnect();
    await publisher.disconnect();
    await (await way.connect("keeper")).disconnect();
};

const shared = async (way) => {
    const members = [await way.connect("first"), await way.connect("second")];
    for (const member of members) {
        await member.subscribe("$share/group/shared/+", 1);
        await member.subscribe("end", 1);
    }
    const publisher = await way.connect("publisher");
    for (let number = 0; number < 40; number++) await publisher.publish("shared/x", `${number}`, { qos: 1 });
    await publisher.publish("end", "end", { qos: 1 });
    const numbers = [];
    for (const member of members) {
        for (let [text] = await member.texts(1); text !== "end"; [text] = await member.texts(1)) {
            numbers.push(Number(text));
        }
        await member.disconnect();
    }
    assert.deepEqual(numbers.sort((a, b) => a - b), Array.from({ length: 40 }, (_, number) => number));
    await publisher.disconnect();
};

const requestResponse = async (way) => {
    const [responder, requester] = [await way.connect("responder"), await way.connect("requester")];
    await responder.subscribe("request/+", 1);
    await requester.subscribe("response/+", 1);
    for (let number = 0; number < 5; number++) {
        const asked = { responseTopic: "response/me", correlationData: Uint8Array.of(0, number) };
        await requester.publish("request/double", `${number}`, { qos: 1, properties: way.v5 ? asked : undefined });
        const { payload, packet } = await responder.message();
        const topic = way.v5 ? packet.properties.responseTopic : "response/me";
        const properties = way.v5 ? { correlationData: packet.properties.correlationData } : undefined;
        await responder.publish(topic, `${2 * Number(payload)}`, { qos: 1, properties });
        const response = await requester.message();
        assert.equal(response.payload.toString(), `${2 * number}`);
        if (way.v5) assert.deepEqual([...response.packet.properties.correlationData], [0, number]);
    }
    await responder.disconnect();
    await requester.disconnect();
};

const large = async (way) => {
    const client = await way.connect("large");
    await client.subscribe("large", 2);
    const sent = Uint8Array.from({ length: 1 << 20 }, (_, number) => number % 251);
    for (const qos of [0, 1, 2]) {
        await client.publish("large", sent, { qos });
        const { payload } = await client.message();
        assert.ok(payload.length === sent.length && payload.every((byte, at) => byte === sent[at]));
    }
    await client.disconnect();
};

const userProperties = async (way) => {
    const client = await way.connect("properties");
    await client.subscribe("properties", 2);
    const sent = { b: ["1", "1"], a: "2", "": "" };
    for (const qos of [0, 1, 2]) {
        const properties = {
            userProperties: sent,
            contentType: "text/plain",
            payloadFormatIndicator: true,
            messageExpiryInterval: 1000,
        };
        await client.publish("properties", "x", { qos, properties });
        const got = (await client.message()).packet.properties;
        assert.deepEqual({ ...got.userProperties }, sent);
        assert.deepEqual([got.contentType, got.payloadFormatIndicator], ["text/plain", true]);
        assert.ok(got.messageExpiryInterval > 900 && got.messageExpiryInterval <= 1000);
    }
    await client.disconnect();
};

const topicAlias = async (way) => {
    const publisher = await way.connect("publisher", { autoAssignTopicAlias: true });
    const subscriber = await way.connect("subscriber", { properties: { topicAliasMaximum: 4 } });
    await subscriber.subscribe("alias/#", 1);
    const topics = Array.from({ length: 40 }, (_, number) => `alias/${number % 8}`);
    for (const topic of topics) await publisher.publish(topic, "x", { qos: 1 });
    for (const topic of topics) assert.equal((await subscriber.message()).topic, way.topic(topic));
    // It sends a topic once, and then its alias only.
    const first = topics.slice(0, 8).map((topic) => way.topic(topic));
    assert.deepEqual(publisher.sentTopics, [...first, ...Array(32).fill("")]);
    await publisher.disconnect();
    await subscriber.disconnect();
};

// A server whose authority is none of those that this machine trusts is nobody to connect to.
const verified = async (way) => {
    const connected = way.connect("distrustful", { ca: undefined }).then(() => true, () => false);
    assert.equal(await connected, false);
};

const cases = {
    qos_0: qos(0),
    qos_1: qos(1),
    qos_2: qos(2),
    retain,
    will,
    resume,
    shared,
    request_response: requestResponse,
    large,
};
const casesV5 = { user_properties: userProperties, topic_alias: topicAlias };
const casesTls = { verified };

Promise.all(JSON.parse(process.argv[2]).map((given) => new Way(given).run())).then(() => process.exit(0));
