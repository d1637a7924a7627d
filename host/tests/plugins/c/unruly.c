/*
 * A plugin that misbehaves as only a plugin without Rust's checks can. What it does is told by the topic of a PUBLISH:
 *
 * - `bad/...`: the answer cannot be used. See `bad` below.
 * - `ask/...`: it asks the host for something that nobody may ask for; the statuses that it gets are the payload of the
 *   message, which is forwarded to `status`. See `ask` below.
 * - `ticket/...`: a mistake with tickets; statuses are published to `status` as well. See `ticket` below.
 *
 * Everything else is forwarded. Its table has bits of callbacks and of blocking ones that nobody knows, and says of one
 * callback that it blocks which it does not have.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mqtt_handler.h"

static mqtt_host host;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t helper;
static bool has_helper;
/* The last ticket that nobody has answered. */
static uint64_t open_ticket;

static mqtt_bytes bytes(const void *data, size_t length) {
    return (mqtt_bytes){data, length};
}

static mqtt_bytes text(const char *text) {
    return bytes(text, strlen(text));
}

static const mqtt_bytes nowhere = {NULL, 7};
static const mqtt_bytes not_utf8 = {(const uint8_t *)"a\xff\xfe", 3};

static bool is(mqtt_bytes given, const char *expected) {
    return given.length == strlen(expected) && memcmp(given.data, expected, given.length) == 0;
}

static void put(mqtt_sink sink, mqtt_key key, mqtt_bytes value) {
    sink.put(sink.context, key, 0, value);
}

/* Forwards what was found out. */
static mqtt_verdict tell(mqtt_sink sink, const mqtt_status *statuses, size_t count) {
    char line[256] = "";
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(line);
        snprintf(line + length, sizeof line - length, i == 0 ? "%u" : " %u", (unsigned)statuses[i]);
    }
    put(sink, MQTT_KEY_TOPIC, text("status"));
    put(sink, MQTT_KEY_PAYLOAD, text(line));
    return MQTT_VERDICT_CHANGED;
}

/* The same, by a message of its own. */
static void publish_status(mqtt_status status) {
    char line[8];
    snprintf(line, sizeof line, "%u", (unsigned)status);
    mqtt_message message = {.topic = text("status"), .payload = text(line)};
    host.services->publish(host.context, &message);
}

static mqtt_verdict bad(mqtt_bytes topic, mqtt_sink sink) {
    if (is(topic, "bad/verdict")) {
        return 77;
    }
    if (is(topic, "bad/deferred")) {
        return MQTT_VERDICT_DEFERRED; /* without a ticket */
    }
    if (is(topic, "bad/null")) {
        put(sink, MQTT_KEY_TOPIC, nowhere);
        return MQTT_VERDICT_CHANGED;
    }
    if (is(topic, "bad/length")) {
        put(sink, MQTT_KEY_TOPIC, bytes("a", SIZE_MAX));
        return MQTT_VERDICT_CHANGED;
    }
    if (is(topic, "bad/huge")) {
        size_t length = 32u << 20;
        void *part = calloc(1, length);
        put(sink, MQTT_KEY_TOPIC, text("huge"));
        for (int i = 0; i < 9; i++) {
            put(sink, MQTT_KEY_PAYLOAD, bytes(part, length));
        }
        free(part);
        return MQTT_VERDICT_CHANGED;
    }
    if (is(topic, "bad/pieces")) {
        for (int i = 0; i < 70000; i++) {
            put(sink, MQTT_KEY_TOPIC, text("pieces"));
        }
        return MQTT_VERDICT_CHANGED;
    }
    if (is(topic, "bad/utf8")) {
        put(sink, MQTT_KEY_TOPIC, not_utf8);
        return MQTT_VERDICT_CHANGED;
    }
    if (is(topic, "bad/error")) {
        put(sink, MQTT_KEY_TEXT, not_utf8);
        return MQTT_VERDICT_ERROR;
    }
    if (is(topic, "bad/novel")) {
        size_t length = 8u << 20;
        char *novel = malloc(length);
        memset(novel, 'x', length);
        put(sink, MQTT_KEY_TEXT, bytes(novel, length));
        free(novel);
        return MQTT_VERDICT_ERROR;
    }
    if (is(topic, "bad/panicked")) {
        put(sink, MQTT_KEY_TEXT, nowhere);
        return MQTT_VERDICT_PANICKED;
    }
    if (is(topic, "bad/poisoned")) {
        return MQTT_VERDICT_POISONED;
    }
    if (is(topic, "bad/away")) {
        return MQTT_VERDICT_AWAY;
    }
    return MQTT_VERDICT_OK;
}

/* A sink and a reply of ours, with nothing behind them. */
static const mqtt_sink no_sink = {NULL, NULL};
static const mqtt_reply no_reply = {NULL, NULL, 0};

static mqtt_verdict ask(mqtt_bytes topic, mqtt_sink sink) {
    const mqtt_services *services = host.services;
    void *context = host.context;
    if (is(topic, "ask/null")) {
        uint64_t number = 1;
        mqtt_message message = {.topic = text("t"), .payload = nowhere};
        mqtt_info_request request = {.target = {.kind = MQTT_TARGET_CLIENT, .client_id = nowhere}};
        mqtt_piece_slice pieces = {NULL, 3};
        mqtt_status statuses[] = {
            services->publish(context, NULL),
            services->publish(context, &message),
            services->publish(NULL, &message),
            services->send(context, NULL, &message),
            services->send_info(context, NULL, &number),
            services->send_info(context, &request, NULL),
            services->disconnect(context, 1, 0, nowhere),
            services->ticket(context, NULL),
            services->complete(context, 1, MQTT_VERDICT_OK, pieces),
            services->query(context, NULL, no_reply),
            services->subscribe(context, NULL, no_reply),
            services->unsubscribe(context, NULL, no_reply),
            services->reauthorise(context, NULL, no_reply),
            services->kv_get(context, text("k"), no_sink),
            services->kv_put(context, nowhere, text("v")),
            services->kv_delete(context, nowhere),
            services->kv_list(context, text(""), nowhere, 1, no_sink),
        };
        services->log(context, 3, nowhere, nowhere, (mqtt_field_slice){NULL, 2});
        services->panicked(context, nowhere, nowhere, nowhere);
        services->metric_record(services->metric(context, 0, nowhere, nowhere), 1.0);
        return tell(sink, statuses, sizeof statuses / sizeof *statuses);
    }
    if (is(topic, "ask/utf8")) {
        mqtt_message message = {.topic = not_utf8};
        mqtt_target client = {.kind = MQTT_TARGET_CLIENT, .client_id = not_utf8};
        mqtt_info_request kind = {.target = {.kind = MQTT_TARGET_ALL}, .kind = not_utf8};
        mqtt_info_request whose = {.target = client, .kind = text("k")};
        mqtt_field field = {.name = not_utf8, .value = not_utf8};
        services->log(context, 3, not_utf8, not_utf8, (mqtt_field_slice){&field, 1});
        mqtt_status statuses[] = {
            services->publish(context, &message),
            services->send(context, &client, &(mqtt_message){.topic = text("t")}),
            services->send_info(context, &kind, NULL),
            services->send_info(context, &whose, NULL),
        };
        return tell(sink, statuses, sizeof statuses / sizeof *statuses);
    }
    if (is(topic, "ask/numbers")) {
        /* Kinds, a QoS, a Reason Code and a level that do not exist. */
        mqtt_message message = {.topic = text("t"), .qos = 3};
        mqtt_info_request request = {.target = {.kind = 200}, .kind = text("k")};
        services->log(context, 200, text(""), text("level 200"), (mqtt_field_slice){NULL, 0});
        services->log(context, 0, text(""), text("level 0"), (mqtt_field_slice){NULL, 0});
        mqtt_status statuses[] = {
            services->publish(context, &message),
            services->send_info(context, &request, NULL),
            services->disconnect(context, 1, 0x7f, text("")),
            services->cancel_timer(context, UINT64_MAX) == MQTT_STATUS_OK ? MQTT_STATUS_OK : MQTT_STATUS_INVALID,
        };
        return tell(sink, statuses, sizeof statuses / sizeof *statuses);
    }
    return MQTT_VERDICT_OK;
}

static mqtt_piece status_pieces[2];

/* Forwards to `status`, by a ticket. */
static mqtt_status complete(uint64_t ticket, const char *payload) {
    status_pieces[0] = (mqtt_piece){.key = MQTT_KEY_TOPIC, .bytes = text("status")};
    status_pieces[1] = (mqtt_piece){.key = MQTT_KEY_PAYLOAD, .bytes = text(payload)};
    mqtt_piece_slice pieces = {status_pieces, 2};
    return host.services->complete(host.context, ticket, MQTT_VERDICT_CHANGED, pieces);
}

static void *answer_elsewhere(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    uint64_t ticket = open_ticket, other = 0;
    pthread_mutex_unlock(&lock);
    /* No callback runs on this thread. */
    mqtt_status outside = host.services->ticket(host.context, &other);
    complete(ticket, outside == MQTT_STATUS_NOT_HERE ? "from another thread" : "a ticket outside of a callback");
    return NULL;
}

static mqtt_verdict ticket(mqtt_bytes topic, mqtt_sink sink) {
    uint64_t number = 0;
    if (is(topic, "ticket/none")) {
        mqtt_status statuses[] = {complete(0, "x"), complete(UINT64_MAX, "x")};
        return tell(sink, statuses, 2);
    }
    if (is(topic, "ticket/late")) {
        /* One whose connection has ended, or whose deadline has passed. */
        pthread_mutex_lock(&lock);
        mqtt_status status = complete(open_ticket, "late");
        pthread_mutex_unlock(&lock);
        return tell(sink, &status, 1);
    }
    if (host.services->ticket(host.context, &number) != MQTT_STATUS_OK) {
        return MQTT_VERDICT_ERROR;
    }
    if (is(topic, "ticket/twice")) {
        complete(number, "once");
        publish_status(complete(number, "twice"));
        return MQTT_VERDICT_DEFERRED;
    }
    if (is(topic, "ticket/unused")) {
        /* Answered by the verdict: the ticket is void, and stays so. */
        pthread_mutex_lock(&lock);
        open_ticket = number;
        pthread_mutex_unlock(&lock);
        return MQTT_VERDICT_OK;
    }
    if (is(topic, "ticket/second")) {
        uint64_t second = 0;
        mqtt_status status = host.services->ticket(host.context, &second);
        complete(number, status == MQTT_STATUS_OK ? "two tickets" : "one ticket");
        return MQTT_VERDICT_DEFERRED;
    }
    if (is(topic, "ticket/utf8")) {
        mqtt_piece piece = {.key = MQTT_KEY_TOPIC, .bytes = not_utf8};
        host.services->complete(host.context, number, MQTT_VERDICT_CHANGED, (mqtt_piece_slice){&piece, 1});
        return MQTT_VERDICT_DEFERRED;
    }
    if (is(topic, "ticket/verdict")) {
        host.services->complete(host.context, number, 77, (mqtt_piece_slice){NULL, 0});
        return MQTT_VERDICT_DEFERRED;
    }
    if (is(topic, "ticket/deferred")) {
        /* An answer that says that it comes later. */
        host.services->complete(host.context, number, MQTT_VERDICT_DEFERRED, (mqtt_piece_slice){NULL, 0});
        return MQTT_VERDICT_DEFERRED;
    }
    pthread_mutex_lock(&lock);
    open_ticket = number;
    if (is(topic, "ticket/thread") && !has_helper) {
        has_helper = pthread_create(&helper, NULL, answer_elsewhere, NULL) == 0;
    }
    pthread_mutex_unlock(&lock);
    /* `ticket/never`: nobody does. */
    return MQTT_VERDICT_DEFERRED;
}

static void *instance_new(mqtt_host given, mqtt_text config, mqtt_sink sink) {
    (void)config, (void)sink;
    host = given;
    return &host;
}

static mqtt_verdict instance_stop(void *instance, mqtt_sink sink) {
    (void)instance, (void)sink;
    if (has_helper) {
        pthread_join(helper, NULL);
    }
    return MQTT_VERDICT_OK;
}

static mqtt_verdict handle_publish(void *instance, void *state, const mqtt_publish *publish, mqtt_sink sink) {
    (void)instance, (void)state;
    if (publish->topic.length > 4 && memcmp(publish->topic.data, "bad/", 4) == 0) {
        return bad(publish->topic, sink);
    }
    if (publish->topic.length > 4 && memcmp(publish->topic.data, "ask/", 4) == 0) {
        return ask(publish->topic, sink);
    }
    if (publish->topic.length > 7 && memcmp(publish->topic.data, "ticket/", 7) == 0) {
        return ticket(publish->topic, sink);
    }
    return MQTT_VERDICT_OK;
}

static mqtt_verdict cancelled(void *instance, uint64_t ticket, mqtt_sink sink) {
    (void)instance, (void)sink;
    char line[64];
    snprintf(line, sizeof line, "cancelled: %s", ticket == open_ticket ? "the open one" : "another one");
    host.services->log(host.context, 3, text(""), text(line), (mqtt_field_slice){NULL, 0});
    return MQTT_VERDICT_OK;
}

const mqtt_plugin MQTT_PLUGIN_SYMBOL = {
    MQTT_PLUGIN_HEAD,
    .name = MQTT_TEXT("unruly-c"),
    .flags = UINT64_MAX & ~MQTT_FLAG_SWAP_DISCONNECTS,
    .callbacks = MQTT_CALLBACK_BIT(MQTT_CALLBACK_PUBLISH) | MQTT_CALLBACK_BIT(MQTT_CALLBACK_STOP) | MQTT_CALLBACK_BIT(63),
    .blocking = MQTT_CALLBACK_BIT(62) | MQTT_CALLBACK_BIT(MQTT_CALLBACK_AUTH) | MQTT_CALLBACK_BIT(MQTT_CALLBACK_DELIVER),
    .instance_new = instance_new,
    .instance_stop = instance_stop,
    .publish = handle_publish,
    .cancelled = cancelled,
};
