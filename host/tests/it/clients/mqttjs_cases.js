// Run by mqttjs.rs with a port, a protocol version (3, 4 or 5), a transport (mqtt, mqtts, ws or wss), and where there is TLS the
// file of the authority to trust, with mqtt in NODE_PATH; and by browser.js in a page, which has these, too.
//
// Prints a line for each case, `<case> ok` or `<case> FAILED`; what went wrong goes to stderr.

const assert = require("node:assert/strict");
const mqtt = require("mqtt");

const PATIENCE = 60_000;
const [port, version] = process.argv.slice(2).map(Number);
const protocol = process.argv[4];
const ca = process.argv[5] ? require("node:fs").readFileSync(process.argv[5]) : undefined;
const V5 = version === 5;

const within = (what, promise) => {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`not within ${PATIENCE} ms: ${what}`)), PATIENCE);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

class Client {
    static async connect(name, { persistent = false, will, ...options } = {}) {
        const client = new Client();
        client.messages = [];
        client.waiting = [];
        client.sentTopics = [];
        const properties = V5 ? { sessionExpiryInterval: persistent ? 100 : 0, ...options.properties } : undefined;
        client.mqtt = mqtt.connect({
            protocol,
            ca,
            host: "127.0.0.1",
            port,
            path: "/mqtt",
            protocolVersion: version,
            protocolId: version === 3 ? "MQIsdp" : "MQTT",
            clientId: `mqttjs-${version}-${name}`,
            clean: !persistent,
            reconnectPeriod: 0,
            will,
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
        const granted = await within("SUBACK", this.mqtt.subscribeAsync(topic, { qos }));
        assert.deepEqual(granted.map((grant) => grant.qos), [qos]);
    }

    unsubscribe(topic) {
        return within("UNSUBACK", this.mqtt.unsubscribeAsync(topic));
    }

    publish(topic, payload, options) {
        return within("the end of a publish", this.mqtt.publishAsync(topic, payload, options));
    }

    disconnect() {
        return within("the end", this.mqtt.endAsync());
    }

    // Without DISCONNECT.
    die() {
        this.mqtt.stream.destroy();
    }
}

const qos = (published) => async () => {
    const [subscriber, publisher] = [await Client.connect("subscriber"), await Client.connect("publisher")];
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

const retain = async () => {
    const [publisher, subscriber] = [await Client.connect("publisher"), await Client.connect("subscriber")];
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

const will = async () => {
    const observer = await Client.connect("observer");
    await observer.subscribe("will/+", 2);
    for (const qos of [0, 1, 2]) {
        const mortal = await Client.connect("mortal", { will: { topic: "will/x", payload: `gone ${qos}`, qos } });
        mortal.die();
        const { payload, packet } = await observer.message();
        assert.deepEqual([payload.toString(), packet.qos], [`gone ${qos}`, qos]);
    }
    const orderly = await Client.connect("mortal", { will: { topic: "will/x", payload: "not to be seen", qos: 1 } });
    await orderly.disconnect();
    await observer.publish("will/end", "end", { qos: 1 });
    assert.deepEqual(await observer.texts(1), ["end"]);
    await observer.disconnect();
};

const resume = async () => {
    let keeper = await Client.connect("keeper", { persistent: true });
    const publisher = await Client.connect("publisher");
    assert.equal(keeper.sessionPresent, false);
    await keeper.subscribe("kept/+", 2);
    await keeper.disconnect();
    const numbers = Array.from({ length: 200 }, (_, number) => number);
    for (const number of numbers) await publisher.publish("kept/x", `${number}`, { qos: 1 + (number % 2) });
    keeper = await Client.connect("keeper", { persistent: true });
    // MQTT 3.1 has no Session Present.
    assert.ok(keeper.sessionPresent || version === 3);
    const got = (await keeper.texts(200)).map(Number);
    // Order is kept for each QoS.
    for (const parity of [0, 1]) {
        const half = (list) => list.filter((number) => number % 2 === parity);
        assert.deepEqual(half(got), half(numbers));
    }
    await keeper.disconnect();
    await publisher.disconnect();
    await (await Client.connect("keeper")).disconnect();
};

const shared = async () => {
    const members = [await Client.connect("first"), await Client.connect("second")];
    for (const member of members) {
        await member.subscribe("$share/group/shared/+", 1);
        await member.subscribe("end", 1);
    }
    const publisher = await Client.connect("publisher");
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

const requestResponse = async () => {
    const [responder, requester] = [await Client.connect("responder"), await Client.connect("requester")];
    await responder.subscribe("request/+", 1);
    await requester.subscribe("response/+", 1);
    for (let number = 0; number < 5; number++) {
        const asked = { responseTopic: "response/me", correlationData: Uint8Array.of(0, number) };
        await requester.publish("request/double", `${number}`, { qos: 1, properties: V5 ? asked : undefined });
        const { payload, packet } = await responder.message();
        const topic = V5 ? packet.properties.responseTopic : "response/me";
        const properties = V5 ? { correlationData: packet.properties.correlationData } : undefined;
        await responder.publish(topic, `${2 * Number(payload)}`, { qos: 1, properties });
        const response = await requester.message();
        assert.equal(response.payload.toString(), `${2 * number}`);
        if (V5) assert.deepEqual([...response.packet.properties.correlationData], [0, number]);
    }
    await responder.disconnect();
    await requester.disconnect();
};

const large = async () => {
    const client = await Client.connect("large");
    await client.subscribe("large", 2);
    const sent = Uint8Array.from({ length: 1 << 20 }, (_, number) => number % 251);
    for (const qos of [0, 1, 2]) {
        await client.publish("large", sent, { qos });
        const { payload } = await client.message();
        assert.ok(payload.length === sent.length && payload.every((byte, at) => byte === sent[at]));
    }
    await client.disconnect();
};

const userProperties = async () => {
    const client = await Client.connect("properties");
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

const topicAlias = async () => {
    const publisher = await Client.connect("publisher", { autoAssignTopicAlias: true });
    const subscriber = await Client.connect("subscriber", { properties: { topicAliasMaximum: 4 } });
    await subscriber.subscribe("alias/#", 1);
    const topics = Array.from({ length: 40 }, (_, number) => `alias/${number % 8}`);
    for (const topic of topics) await publisher.publish(topic, "x", { qos: 1 });
    for (const topic of topics) assert.equal((await subscriber.message()).topic, topic);
    // It sends a topic once, and then its alias only.
    assert.deepEqual(publisher.sentTopics, [...topics.slice(0, 8), ...Array(32).fill("")]);
    await publisher.disconnect();
    await subscriber.disconnect();
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
    ...(V5 ? { user_properties: userProperties, topic_alias: topicAlias } : {}),
};

(async () => {
    for (const [name, run] of Object.entries(cases)) {
        try {
            await run();
            console.log(name, "ok");
        } catch (error) {
            console.error(error);
            console.log(name, "FAILED");
        }
    }
    process.exit(0);
})();
