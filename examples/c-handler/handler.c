/*
 * A handler in C: lets clients in, counts what each of them publishes, and keeps some topics to itself.
 *
 * - CONNECT: the user name `nobody` is refused, with a Reason String for 5.0 clients. Everybody else is greeted in the log.
 * - PUBLISH to `count`: forwarded to `count/<client id>`, with the number of messages of this connection as payload.
 *   `announce`: published by the handler itself to `announcements`, and acknowledged; the message goes nowhere else.
 *   `internal/...`: refused.
 * - SUBSCRIBE to `internal/...`: refused; to anything else: granted as asked.
 * - The state of a connection goes over to the next version of the library when it is swapped.
 *
 * The rules that it keeps stand in plugin-api/ABI.md: views are read during the call only, what is to be kept is copied,
 * and what is allocated here is freed here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mqtt_handler.h"

/* The plugin as a whole. It is used by several threads at once: nothing in it changes. */
typedef struct {
    mqtt_host host;
} handler;

/* One connection. It is used by one thread at a time. */
typedef struct {
    char *client_id;
    uint64_t published;
} connection;

static mqtt_bytes bytes(const void *data, size_t length) {
    return (mqtt_bytes){data, length};
}

static mqtt_bytes text(const char *text) {
    return bytes(text, strlen(text));
}

static bool equals(mqtt_bytes given, const char *expected) {
    return given.length == strlen(expected) && memcmp(given.data, expected, given.length) == 0;
}

static bool begins_with(mqtt_bytes given, const char *start) {
    return given.length >= strlen(start) && memcmp(given.data, start, strlen(start)) == 0;
}

static void put_bytes(mqtt_sink sink, mqtt_key key, mqtt_bytes value) {
    sink.put(sink.context, key, 0, value);
}

static void put_number(mqtt_sink sink, mqtt_key key, uint64_t number) {
    sink.put(sink.context, key, number, bytes(NULL, 0));
}

static void log_line(const handler *self, const char *line) {
    self->host.services->log(self->host.context, 3, bytes(NULL, 0), text(line), (mqtt_field_slice){NULL, 0});
}

/* A refusal: Reason Code, and a Reason String (property 0x1F: its length in two bytes, then the text). */
static mqtt_verdict reject(mqtt_sink sink, uint8_t reason_code, const char *why) {
    uint8_t property[3 + 255];
    size_t length = strlen(why);
    property[0] = 0x1f;
    property[1] = 0;
    property[2] = (uint8_t)length;
    memcpy(property + 3, why, length);
    put_number(sink, MQTT_KEY_REASON_CODE, reason_code);
    put_bytes(sink, MQTT_KEY_PROPERTIES, bytes(property, 3 + length));
    return MQTT_VERDICT_REJECT;
}

static void *instance_new(mqtt_host host, mqtt_text config, mqtt_sink sink) {
    if (!equals(config, "{}")) {
        /* NULL refuses to start, and the text says why. */
        sink.put(sink.context, MQTT_KEY_TEXT, MQTT_VERDICT_ERROR, text("this plugin has no configuration: expected {}"));
        return NULL;
    }
    handler *self = malloc(sizeof *self);
    if (self != NULL) {
        self->host = host;
        log_line(self, "the handler in C is ready");
    }
    return self;
}

static mqtt_verdict instance_drop(void *instance, mqtt_sink sink) {
    (void)sink;
    free(instance);
    return MQTT_VERDICT_OK;
}

static void *connection_new(void *instance, const mqtt_connection_info *info, mqtt_sink sink) {
    (void)instance, (void)info, (void)sink;
    return calloc(1, sizeof(connection));
}

static mqtt_verdict connection_drop(void *state, mqtt_sink sink) {
    (void)sink;
    connection *self = state;
    free(self->client_id);
    free(self);
    return MQTT_VERDICT_OK;
}

static void remember_client(connection *self, mqtt_text client_id) {
    free(self->client_id);
    self->client_id = malloc(client_id.length + 1);
    if (self->client_id != NULL) {
        memcpy(self->client_id, client_id.data, client_id.length);
        self->client_id[client_id.length] = '\0';
    }
}

static const char *client(const connection *self) {
    return self->client_id == NULL ? "" : self->client_id;
}

static mqtt_verdict handle_connect(void *instance, void *state, const mqtt_connect *connect, mqtt_sink sink) {
    connection *self = state;
    if ((connect->flags & MQTT_CONNECT_HAS_USERNAME) != 0 && equals(connect->username, "nobody")) {
        return reject(sink, MQTT_REASON_NOT_AUTHORIZED, "nobody may not come in");
    }
    remember_client(self, connect->client_id);
    char line[300];
    snprintf(line, sizeof line, "hello from C, %.200s", client(self));
    log_line(instance, line);
    return MQTT_VERDICT_OK;
}

static mqtt_verdict handle_publish(void *instance, void *state, const mqtt_publish *publish, mqtt_sink sink) {
    const handler *plugin = instance;
    connection *self = state;
    self->published++;
    if (begins_with(publish->topic, "internal/")) {
        return reject(sink, MQTT_REASON_NOT_AUTHORIZED, "internal");
    }
    if (equals(publish->topic, "announce")) {
        mqtt_message message = {.topic = text("announcements"), .payload = publish->payload, .qos = publish->qos};
        mqtt_status status = plugin->host.services->publish(plugin->host.context, &message);
        if (status != MQTT_STATUS_OK) {
            put_bytes(sink, MQTT_KEY_TEXT, text("the host did not take the announcement"));
            return MQTT_VERDICT_ERROR;
        }
        return MQTT_VERDICT_HANDLED;
    }
    if (equals(publish->topic, "count")) {
        char topic[300], count[32];
        snprintf(topic, sizeof topic, "count/%.200s", client(self));
        snprintf(count, sizeof count, "%" PRIu64, self->published);
        put_bytes(sink, MQTT_KEY_TOPIC, text(topic));
        put_bytes(sink, MQTT_KEY_PAYLOAD, text(count));
        put_number(sink, MQTT_KEY_QOS, publish->qos);
        return MQTT_VERDICT_CHANGED;
    }
    return MQTT_VERDICT_OK;
}

static mqtt_verdict handle_subscribe(void *instance, void *state, const mqtt_subscribe *subscribe, mqtt_sink sink) {
    (void)instance, (void)state;
    size_t count = subscribe->subscriptions.length;
    uint8_t *codes = malloc(count);
    if (codes == NULL) {
        put_bytes(sink, MQTT_KEY_TEXT, text("out of memory"));
        return MQTT_VERDICT_ERROR;
    }
    for (size_t i = 0; i < count; i++) {
        const mqtt_subscription *subscription = &subscribe->subscriptions.data[i];
        codes[i] = begins_with(subscription->filter, "internal/") ? MQTT_REASON_NOT_AUTHORIZED : subscription->qos;
    }
    put_bytes(sink, MQTT_KEY_CODES, bytes(codes, count));
    free(codes);
    return MQTT_VERDICT_CODES;
}

static mqtt_verdict handle_disconnect(void *instance, void *state, const mqtt_disconnect *end, mqtt_sink sink) {
    (void)sink;
    const connection *self = state;
    char line[300];
    snprintf(line, sizeof line, "goodbye from C, %.200s: %" PRIu64 " published, kind %u", client(self), self->published,
             (unsigned)end->kind);
    log_line(instance, line);
    return MQTT_VERDICT_OK;
}

/* Version 1 of the state's schema: the number in 8 bytes, as this machine writes it, then the Client Identifier. */
static mqtt_verdict export_state(void *instance, void *state, mqtt_sink sink) {
    (void)instance;
    const connection *self = state;
    size_t length = strlen(client(self));
    uint8_t *exported = malloc(8 + length);
    if (exported == NULL) {
        return MQTT_VERDICT_ERROR;
    }
    memcpy(exported, &self->published, 8);
    memcpy(exported + 8, client(self), length);
    sink.put(sink.context, MQTT_KEY_STATE, 1, bytes(exported, 8 + length));
    free(exported);
    return MQTT_VERDICT_OK;
}

static void *import_state(void *instance, const mqtt_swapped *swapped, const mqtt_state *exported, mqtt_sink sink) {
    (void)instance, (void)swapped;
    if (exported->version != 1 || exported->bytes.length < 8) {
        sink.put(sink.context, MQTT_KEY_TEXT, MQTT_VERDICT_ERROR, text("a state of an unknown version"));
        return NULL;
    }
    connection *self = calloc(1, sizeof *self);
    if (self != NULL) {
        memcpy(&self->published, exported->bytes.data, 8);
        remember_client(self, bytes(exported->bytes.data + 8, exported->bytes.length - 8));
    }
    return self;
}

const mqtt_plugin MQTT_PLUGIN_SYMBOL = {
    MQTT_PLUGIN_HEAD,
    .name = MQTT_TEXT("c-handler"),
    .version = MQTT_TEXT("1.0.0"),
    .instance_new = instance_new,
    .instance_drop = instance_drop,
    .connection_new = connection_new,
    .connection_drop = connection_drop,
    .connect = handle_connect,
    .publish = handle_publish,
    .subscribe = handle_subscribe,
    .disconnect = handle_disconnect,
    .export_state = export_state,
    .import_state = import_state,
};
