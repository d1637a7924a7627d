/*
 * The boundary between the MQTT broker `host` and its plugins, for plugins that are not written in Rust.
 *
 * Generated from plugin-api/src, and checked against it with a C compiler: do not edit. The rules stand in
 * plugin-api/ABI.md: who frees what, which thread may do what, what may grow in a later version.
 *
 * A plugin is a shared library with one symbol:
 *
 *     const mqtt_plugin MQTT_PLUGIN_SYMBOL = { MQTT_PLUGIN_HEAD, .name = MQTT_TEXT("my-plugin"), ... };
 *
 * A function that is NULL is a callback that the plugin does not implement, and costs nothing. It is no opinion, and what no
 * plugin has an opinion about is allowed. With one exception: plugins that decide who may connect (`handle_connect`,
 * `handle_auth`) and on one of publishing (`handle_publish`) and subscribing (`handle_subscribe`, or `handle_deliver`) refuse
 * the other one with 0x87 at listeners that other machines reach, unless the host is told otherwise (`--undecided allow`).
 * Implement both, if only to agree.
 */
#ifndef MQTT_HANDLER_H
#define MQTT_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MQTT_ABI_MAJOR 1
#define MQTT_ABI_MINOR 2

/* Bytes, and UTF-8 text; valid for the length of one call. Where there are none, the pointer means nothing. */
typedef struct mqtt_bytes {
    const uint8_t *data;
    size_t length;
} mqtt_bytes;
typedef mqtt_bytes mqtt_text;

/* How a callback ended; the contents of the answer, if it has any, are in the mqtt_sink. */
typedef uint8_t mqtt_verdict;
enum {
    /* Go on: accepted, authenticated, forwarded unchanged, granted as asked, or simply done. */
    MQTT_VERDICT_OK = 0,
    /* Forward the message in the sink instead (publish). */
    MQTT_VERDICT_CHANGED = 1,
    /* Acknowledge and do not route (publish). */
    MQTT_VERDICT_HANDLED = 2,
    /* Refuse with the Reason Code and properties in the sink (connect, auth, publish). */
    MQTT_VERDICT_REJECT = 3,
    /* Disconnect with the Reason Code and properties in the sink (publish, subscribe, unsubscribe). */
    MQTT_VERDICT_DISCONNECT = 4,
    /* Continue the exchange with the data in the sink (auth). */
    MQTT_VERDICT_CONTINUE = 5,
    /* One Reason Code per Topic Filter is in the sink (subscribe, unsubscribe). */
    MQTT_VERDICT_CODES = 6,
    /* Do not deliver the message to this client (deliver). */
    MQTT_VERDICT_DROP = 7,
    /* The answer comes later, through the ticket that was taken in this call (connect, auth, publish, subscribe,
     * unsubscribe, info). */
    MQTT_VERDICT_DEFERRED = 8,
    /* The state is still with an asynchronous callback that was cancelled; it cannot be entered. */
    MQTT_VERDICT_AWAY = 252,
    /* The state panicked in an earlier call and is not entered again. */
    MQTT_VERDICT_POISONED = 253,
    /* The callback returned an error; its text is in the sink. */
    MQTT_VERDICT_ERROR = 254,
    /* The callback panicked; where no panic hook of ours runs, the text is in the sink. */
    MQTT_VERDICT_PANICKED = 255,
};

/* What a piece of an answer is; see mqtt_sink. */
typedef uint8_t mqtt_key;
enum {
    /* Bytes: UTF-8 text of an error or a panic, or why a connection is stopped. */
    MQTT_KEY_TEXT = 0,
    /* Number: a Reason Code. */
    MQTT_KEY_REASON_CODE = 1,
    /* Bytes: an encoded property list without its length. */
    MQTT_KEY_PROPERTIES = 2,
    /* Bytes: a Client Identifier. */
    MQTT_KEY_CLIENT_ID = 3,
    /* Number: a Keep Alive in seconds. */
    MQTT_KEY_KEEP_ALIVE = 4,
    /* Number: a Session Expiry Interval in seconds. */
    MQTT_KEY_SESSION_EXPIRY = 5,
    /* Bytes: Authentication Data. */
    MQTT_KEY_AUTH_DATA = 6,
    /* Bytes: one Reason Code per Topic Filter. */
    MQTT_KEY_CODES = 7,
    /* Bytes: a Topic Name. */
    MQTT_KEY_TOPIC = 8,
    /* Bytes: an application payload. */
    MQTT_KEY_PAYLOAD = 9,
    /* Number: a QoS. */
    MQTT_KEY_QOS = 10,
    /* Number: RETAIN, 0 or 1. */
    MQTT_KEY_RETAIN = 11,
    /* Number: begins an action of `handle_info`, of the kind MQTT_ACTION_PUBLISH, MQTT_ACTION_DISCONNECT or
     * MQTT_ACTION_STOP; the pieces up to the next one belong to it. */
    MQTT_KEY_ACTION = 12,
    /* Number and bytes: a schema version and a state that was exported in it. */
    MQTT_KEY_STATE = 13,
    /* Number: the token of a message, which comes back in `handle_puback`. */
    MQTT_KEY_TOKEN = 14,
    /* Number: begins a row of an answer of the host's, of the kind that was asked for; the pieces up to the next
     * one belong to it. */
    MQTT_KEY_ROW = 15,
    /* Number: a connection. */
    MQTT_KEY_CONNECTION = 16,
    /* Bytes: a Topic Filter as the client wrote it. */
    MQTT_KEY_FILTER = 17,
    /* Number: flags, as the row's documentation says. */
    MQTT_KEY_FLAGS = 18,
    /* Bytes: address and port of a peer, as text. */
    MQTT_KEY_PEER = 19,
    /* Bytes: the name of a listener. */
    MQTT_KEY_LISTENER = 20,
    /* Number: the protocol version, 3, 4 or 5. */
    MQTT_KEY_PROTOCOL_VERSION = 21,
    /* Number: a Subscription Identifier. */
    MQTT_KEY_IDENTIFIER = 22,
    /* Number: Topic Filters that a session has subscribed to. */
    MQTT_KEY_SUBSCRIPTIONS = 23,
    /* Number: messages that wait in a session's queue. */
    MQTT_KEY_QUEUED = 24,
    /* Number: messages that were sent and not acknowledged completely. */
    MQTT_KEY_IN_FLIGHT = 25,
    /* Number: milliseconds from now. */
    MQTT_KEY_MILLISECONDS = 26,
    /* Number and bytes: where the next page begins; absent on the last one. */
    MQTT_KEY_CURSOR = 27,
    /* Bytes: the key of a value. */
    MQTT_KEY_KEY = 28,
    /* Bytes: a value. */
    MQTT_KEY_VALUE = 29,
    /* Bytes: the ShareName of a Shared Subscription. */
    MQTT_KEY_SHARE_NAME = 30,
    /* Number: how many there are of what was counted. */
    MQTT_KEY_COUNT = 31,
};

enum {
    /* The thread that asks will wait for the answer. Where it would wait for itself, as it is inside a callback,
     * the request is refused with MQTT_STATUS_NOT_HERE. */
    MQTT_REPLY_WAITS = 1,
};

enum {
    /* An action of `handle_info`: publish the message that follows to this client. */
    MQTT_ACTION_PUBLISH = 1,
    /* An action of `handle_info`: disconnect with the Reason Code and properties that follow. */
    MQTT_ACTION_DISCONNECT = 2,
    /* An action of `handle_info`: close without DISCONNECT; the text that follows says why. */
    MQTT_ACTION_STOP = 3,
    /* The library was built so that a panic unwinds, and can be caught. */
    MQTT_FLAG_UNWINDS = 1,
    /* A connection whose state cannot be handed over to this plugin is disconnected; otherwise it gets a fresh
     * one. */
    MQTT_FLAG_SWAP_DISCONNECTS = 2,
};

/* How a host service ended. */
typedef uint8_t mqtt_status;
enum {
    /* The request is queued. */
    MQTT_STATUS_OK = 0,
    /* Something in the request is not valid: a topic, a property, a Reason Code. */
    MQTT_STATUS_INVALID = 1,
    /* The request is larger than the host takes. */
    MQTT_STATUS_TOO_LARGE = 2,
    /* A queue is full; the request is dropped, at least by the worker whose queue it is. */
    MQTT_STATUS_FULL = 3,
    /* The server does not run: not yet, not any more, or the plugin is only being checked. */
    MQTT_STATUS_NOT_RUNNING = 4,
    /* There is no such client, connection, ticket, timer, key or subscription (any more). */
    MQTT_STATUS_NOT_FOUND = 5,
    /* The ticket was there, and does not wait any more: its deadline has passed, or its connection has ended. */
    MQTT_STATUS_GONE = 6,
    /* This cannot be asked for here: a ticket outside of a callback that may answer later, for example. */
    MQTT_STATUS_NOT_HERE = 7,
    /* This host does not have the service. */
    MQTT_STATUS_NOT_SUPPORTED = 8,
};

enum {
    /* There is a User Name (it may be empty). */
    MQTT_CONNECT_HAS_USERNAME = 1,
    /* There is a Password (it may be empty). */
    MQTT_CONNECT_HAS_PASSWORD = 2,
    /* Clean Start. */
    MQTT_CONNECT_CLEAN_START = 4,
    /* The server chose the Client Identifier. */
    MQTT_CONNECT_CLIENT_ID_ASSIGNED = 8,
};

enum {
    /* There is Authentication Data (it may be empty). */
    MQTT_AUTH_HAS_DATA = 1,
};

enum {
    /* RETAIN. */
    MQTT_PUBLISH_RETAIN = 1,
    /* DUP. */
    MQTT_PUBLISH_DUP = 2,
    /* A Will Message. */
    MQTT_PUBLISH_WILL = 4,
    /* Asked once more: a later plugin changed the topic, or a Will Message has waited. */
    MQTT_PUBLISH_AGAIN = 8,
};

enum {
    /* A Shared Subscription. */
    MQTT_SUBSCRIPTION_SHARED = 1,
    /* No Local. */
    MQTT_SUBSCRIPTION_NO_LOCAL = 2,
    /* Retain As Published. */
    MQTT_SUBSCRIPTION_RETAIN_AS_PUBLISHED = 4,
    /* The subscription is there already, and is asked about again. */
    MQTT_SUBSCRIPTION_AGAIN = 8,
};

enum {
    /* `sender`: the plugin, outside of a connection's callback. */
    MQTT_INFO_SENDER_PLUGIN = 0,
    /* `sender`: a connection's callback. */
    MQTT_INFO_SENDER_CONNECTION = 1,
    /* `sender`: a timer. */
    MQTT_INFO_SENDER_TIMER = 2,
};

enum {
    /* The session was there already, and is resumed. */
    MQTT_CONNECTED_SESSION_PRESENT = 1,
    /* Another connection of this client was ended for it. */
    MQTT_CONNECTED_TOOK_OVER = 2,
};

enum {
    /* RETAIN of the packet. */
    MQTT_DELIVER_RETAIN = 1,
    /* By a Shared Subscription. */
    MQTT_DELIVER_SHARED = 2,
    /* `origin`: a client published it. */
    MQTT_DELIVER_ORIGIN_CLIENT = 0,
    /* `origin`: a plugin. */
    MQTT_DELIVER_ORIGIN_PLUGIN = 1,
    /* `origin`: a Will Message. */
    MQTT_DELIVER_ORIGIN_WILL = 2,
    /* `origin`: the server. */
    MQTT_DELIVER_ORIGIN_SERVER = 3,
    /* `cause`: it has just been published. */
    MQTT_DELIVER_CAUSE_PUBLISHED = 0,
    /* `cause`: it was retained. */
    MQTT_DELIVER_CAUSE_RETAINED = 1,
    /* `cause`: it waited in the session's queue. */
    MQTT_DELIVER_CAUSE_QUEUED = 2,
    /* `cause`: it was sent to this client. */
    MQTT_DELIVER_CAUSE_SENT = 3,
};

enum {
    /* `change`: it was stored. */
    MQTT_RETAINED_SET = 0,
    /* `change`: it was removed by a message without payload. */
    MQTT_RETAINED_CLEARED = 1,
    /* `change`: its Message Expiry Interval has passed. */
    MQTT_RETAINED_EXPIRED = 2,
};

enum {
    /* Back to an earlier instance, after a swap that was not kept. */
    MQTT_SWAPPED_ROLLBACK = 1,
};

enum {
    /* `kind`: one Network Connection. */
    MQTT_TARGET_CONNECTION = 0,
    /* `kind`: one client. */
    MQTT_TARGET_CLIENT = 1,
    /* `kind`: all. */
    MQTT_TARGET_ALL = 2,
    /* `kind`: the plugin as a whole. */
    MQTT_TARGET_PLUGIN = 3,
};

enum {
    /* `kind`: connections. */
    MQTT_QUERY_CONNECTIONS = 0,
    /* `kind`: sessions. */
    MQTT_QUERY_SESSIONS = 1,
    /* `kind`: subscriptions. */
    MQTT_QUERY_SUBSCRIPTIONS = 2,
    /* `kind`: retained messages. */
    MQTT_QUERY_RETAINED = 3,
};

enum {
    /* A metric that only grows. */
    MQTT_METRIC_COUNTER = 0,
    /* A metric that is set. */
    MQTT_METRIC_GAUGE = 1,
    /* A metric whose values are sorted into buckets. */
    MQTT_METRIC_HISTOGRAM = 2,
};

enum {
    /* handle_connect */
    MQTT_CALLBACK_CONNECT = 0,
    /* handle_auth */
    MQTT_CALLBACK_AUTH = 1,
    /* handle_publish */
    MQTT_CALLBACK_PUBLISH = 2,
    /* handle_subscribe */
    MQTT_CALLBACK_SUBSCRIBE = 3,
    /* handle_unsubscribe */
    MQTT_CALLBACK_UNSUBSCRIBE = 4,
    /* handle_puback */
    MQTT_CALLBACK_PUBACK = 5,
    /* handle_info */
    MQTT_CALLBACK_INFO = 6,
    /* handle_disconnect */
    MQTT_CALLBACK_DISCONNECT = 7,
    /* handle_session_expired */
    MQTT_CALLBACK_SESSION_EXPIRED = 8,
    /* stop */
    MQTT_CALLBACK_STOP = 9,
    /* handle_connected */
    MQTT_CALLBACK_CONNECTED = 10,
    /* handle_deliver */
    MQTT_CALLBACK_DELIVER = 11,
    /* handle_message_dropped */
    MQTT_CALLBACK_DROPPED = 12,
    /* handle_message_acknowledged */
    MQTT_CALLBACK_ACKNOWLEDGED = 13,
    /* handle_message_expired */
    MQTT_CALLBACK_EXPIRED = 14,
    /* handle_retained */
    MQTT_CALLBACK_RETAINED = 15,
    /* handle_event */
    MQTT_CALLBACK_EVENT = 16,
    /* handle_config */
    MQTT_CALLBACK_CONFIG = 17,
    /* health */
    MQTT_CALLBACK_HEALTH = 18,
    /* handle_swapped */
    MQTT_CALLBACK_SWAPPED = 19,
    /* export_state */
    MQTT_CALLBACK_EXPORT_STATE = 20,
    /* import_state */
    MQTT_CALLBACK_IMPORT_STATE = 21,
    /* export_plugin_state */
    MQTT_CALLBACK_EXPORT_PLUGIN = 22,
    /* import_plugin_state */
    MQTT_CALLBACK_IMPORT_PLUGIN = 23,
};

enum {
    /* The CONNECT packet named the method. */
    MQTT_AUTH_STEP_START = 0,
    /* The client answers AuthVerdict::Continue. */
    MQTT_AUTH_STEP_CONTINUE = 1,
    /* A client that is connected begins anew, with the same method. */
    MQTT_AUTH_STEP_RE_AUTHENTICATE = 2,
};

enum {
    /* A way that this version of `plugin-api` does not know. */
    MQTT_DISCONNECT_KIND_OTHER = 0,
    /* The client sent DISCONNECT; its Reason Code is given. */
    MQTT_DISCONNECT_KIND_NORMAL = 1,
    /* The client sent DISCONNECT and wants its Will Message published. */
    MQTT_DISCONNECT_KIND_WITH_WILL = 2,
    /* The client, or the network, closed the connection without DISCONNECT. */
    MQTT_DISCONNECT_KIND_CLOSED = 3,
    /* Nothing arrived for one and a half times the Keep Alive. */
    MQTT_DISCONNECT_KIND_KEEP_ALIVE_TIMEOUT = 4,
    /* Another connection has taken over the session. */
    MQTT_DISCONNECT_KIND_TAKEN_OVER = 5,
    /* The server ended it: by a verdict, by Host::disconnect, or by its operator. */
    MQTT_DISCONNECT_KIND_SERVER_DISCONNECT = 6,
    /* The server shuts down. */
    MQTT_DISCONNECT_KIND_SERVER_SHUTDOWN = 7,
    /* The client broke the protocol. */
    MQTT_DISCONNECT_KIND_PROTOCOL_ERROR = 8,
    /* The client was not let in: a plugin or the server refused, or the client gave up before. */
    MQTT_DISCONNECT_KIND_REFUSED = 9,
    /* A plugin could not answer, by a panic for example. */
    MQTT_DISCONNECT_KIND_HANDLER_FAILED = 10,
    /* A plugin answered InfoAction::Stop. */
    MQTT_DISCONNECT_KIND_STOPPED = 11,
    /* A bound of the server was exceeded. */
    MQTT_DISCONNECT_KIND_LIMIT_EXCEEDED = 12,
};

enum {
    /* PUBACK: the end of QoS 1. */
    MQTT_ACK_KIND_PUBACK = 0,
    /* PUBREC with an error: the client refused a QoS 2 message. */
    MQTT_ACK_KIND_PUBREC = 1,
    /* PUBCOMP: the end of QoS 2. */
    MQTT_ACK_KIND_PUBCOMP = 2,
};

enum {
    /* A reason that this version of `plugin-api` does not know. */
    MQTT_DROP_REASON_OTHER = 0,
    /* The session's queue was full. */
    MQTT_DROP_REASON_QUEUE_FULL = 1,
    /* The client does not read as fast as messages come (QoS 0). */
    MQTT_DROP_REASON_SLOW = 2,
    /* It is larger than the client takes. */
    MQTT_DROP_REASON_TOO_LARGE = 3,
    /* A handler has dropped it. */
    MQTT_DROP_REASON_HANDLER = 4,
    /* The session has ended. */
    MQTT_DROP_REASON_SESSION_ENDED = 5,
    /* The client may not have it any more. */
    MQTT_DROP_REASON_NOT_AUTHORISED = 6,
    /* The server holds as much as it may. */
    MQTT_DROP_REASON_SERVER_FULL = 7,
    /* Its topic is not below the mount point of the client's listener. */
    MQTT_DROP_REASON_OUTSIDE_MOUNT = 8,
};

enum {
    /* At each SUBSCRIBE. */
    MQTT_RETAIN_HANDLING_SEND = 0,
    /* At a SUBSCRIBE that is not a repetition. */
    MQTT_RETAIN_HANDLING_SEND_IF_NEW = 1,
    /* Never. */
    MQTT_RETAIN_HANDLING_DO_NOT_SEND = 2,
};

enum {
    /* A way that this version of `plugin-api` does not know. */
    MQTT_TRANSPORT_KIND_OTHER = 0,
    /* Plain TCP. */
    MQTT_TRANSPORT_KIND_TCP = 1,
    /* TLS over TCP. */
    MQTT_TRANSPORT_KIND_TLS = 2,
    /* WebSocket over TCP. */
    MQTT_TRANSPORT_KIND_WS = 3,
    /* WebSocket over TLS. */
    MQTT_TRANSPORT_KIND_WSS = 4,
    /* A Unix domain socket. */
    MQTT_TRANSPORT_KIND_UNIX = 5,
    /* QUIC. */
    MQTT_TRANSPORT_KIND_QUIC = 6,
};

enum {
    /* Something that this version of `plugin-api` does not know. */
    MQTT_NAME_KIND_OTHER = 0,
    /* A host. */
    MQTT_NAME_KIND_DNS = 1,
    /* A mailbox. */
    MQTT_NAME_KIND_EMAIL = 2,
    /* A URI. */
    MQTT_NAME_KIND_URI = 3,
    /* An IP address. */
    MQTT_NAME_KIND_IP = 4,
};

enum {
    /* Success */
    MQTT_REASON_SUCCESS = 0x00,
    /* Granted QoS 1 */
    MQTT_REASON_GRANTED_QOS_1 = 0x01,
    /* Granted QoS 2 */
    MQTT_REASON_GRANTED_QOS_2 = 0x02,
    /* Disconnect with Will Message */
    MQTT_REASON_DISCONNECT_WITH_WILL = 0x04,
    /* No matching subscribers */
    MQTT_REASON_NO_MATCHING_SUBSCRIBERS = 0x10,
    /* No subscription existed */
    MQTT_REASON_NO_SUBSCRIPTION_EXISTED = 0x11,
    /* Continue authentication */
    MQTT_REASON_CONTINUE_AUTHENTICATION = 0x18,
    /* Re-authenticate */
    MQTT_REASON_RE_AUTHENTICATE = 0x19,
    /* Unspecified error */
    MQTT_REASON_UNSPECIFIED_ERROR = 0x80,
    /* Malformed Packet */
    MQTT_REASON_MALFORMED_PACKET = 0x81,
    /* Protocol Error */
    MQTT_REASON_PROTOCOL_ERROR = 0x82,
    /* Implementation specific error */
    MQTT_REASON_IMPLEMENTATION_SPECIFIC_ERROR = 0x83,
    /* Unsupported Protocol Version */
    MQTT_REASON_UNSUPPORTED_PROTOCOL_VERSION = 0x84,
    /* Client Identifier not valid */
    MQTT_REASON_CLIENT_IDENTIFIER_NOT_VALID = 0x85,
    /* Bad User Name or Password */
    MQTT_REASON_BAD_USER_NAME_OR_PASSWORD = 0x86,
    /* Not authorized */
    MQTT_REASON_NOT_AUTHORIZED = 0x87,
    /* Server unavailable */
    MQTT_REASON_SERVER_UNAVAILABLE = 0x88,
    /* Server busy */
    MQTT_REASON_SERVER_BUSY = 0x89,
    /* Banned */
    MQTT_REASON_BANNED = 0x8a,
    /* Server shutting down */
    MQTT_REASON_SERVER_SHUTTING_DOWN = 0x8b,
    /* Bad authentication method */
    MQTT_REASON_BAD_AUTHENTICATION_METHOD = 0x8c,
    /* Keep Alive timeout */
    MQTT_REASON_KEEP_ALIVE_TIMEOUT = 0x8d,
    /* Session taken over */
    MQTT_REASON_SESSION_TAKEN_OVER = 0x8e,
    /* Topic Filter invalid */
    MQTT_REASON_TOPIC_FILTER_INVALID = 0x8f,
    /* Topic Name invalid */
    MQTT_REASON_TOPIC_NAME_INVALID = 0x90,
    /* Packet Identifier in use */
    MQTT_REASON_PACKET_IDENTIFIER_IN_USE = 0x91,
    /* Packet Identifier not found */
    MQTT_REASON_PACKET_IDENTIFIER_NOT_FOUND = 0x92,
    /* Receive Maximum exceeded */
    MQTT_REASON_RECEIVE_MAXIMUM_EXCEEDED = 0x93,
    /* Topic Alias invalid */
    MQTT_REASON_TOPIC_ALIAS_INVALID = 0x94,
    /* Packet too large */
    MQTT_REASON_PACKET_TOO_LARGE = 0x95,
    /* Message rate too high */
    MQTT_REASON_MESSAGE_RATE_TOO_HIGH = 0x96,
    /* Quota exceeded */
    MQTT_REASON_QUOTA_EXCEEDED = 0x97,
    /* Administrative action */
    MQTT_REASON_ADMINISTRATIVE_ACTION = 0x98,
    /* Payload format invalid */
    MQTT_REASON_PAYLOAD_FORMAT_INVALID = 0x99,
    /* Retain not supported */
    MQTT_REASON_RETAIN_NOT_SUPPORTED = 0x9a,
    /* QoS not supported */
    MQTT_REASON_QOS_NOT_SUPPORTED = 0x9b,
    /* Use another server */
    MQTT_REASON_USE_ANOTHER_SERVER = 0x9c,
    /* Server moved */
    MQTT_REASON_SERVER_MOVED = 0x9d,
    /* Shared Subscriptions not supported */
    MQTT_REASON_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9e,
    /* Connection rate exceeded */
    MQTT_REASON_CONNECTION_RATE_EXCEEDED = 0x9f,
    /* Maximum connect time */
    MQTT_REASON_MAXIMUM_CONNECT_TIME = 0xa0,
    /* Subscription Identifiers not supported */
    MQTT_REASON_SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xa1,
    /* Wildcard Subscriptions not supported */
    MQTT_REASON_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xa2,
};

typedef struct mqtt_piece mqtt_piece;
typedef struct mqtt_reply mqtt_reply;
typedef struct mqtt_sink mqtt_sink;
typedef struct mqtt_peer mqtt_peer;
typedef struct mqtt_connection_info mqtt_connection_info;
typedef struct mqtt_connect mqtt_connect;
typedef struct mqtt_auth mqtt_auth;
typedef struct mqtt_publish mqtt_publish;
typedef struct mqtt_subscription mqtt_subscription;
typedef struct mqtt_subscribe mqtt_subscribe;
typedef struct mqtt_unsubscribe mqtt_unsubscribe;
typedef struct mqtt_ack mqtt_ack;
typedef struct mqtt_info mqtt_info;
typedef struct mqtt_disconnect mqtt_disconnect;
typedef struct mqtt_message mqtt_message;
typedef struct mqtt_connected mqtt_connected;
typedef struct mqtt_deliver mqtt_deliver;
typedef struct mqtt_message_notice mqtt_message_notice;
typedef struct mqtt_retained mqtt_retained;
typedef struct mqtt_state mqtt_state;
typedef struct mqtt_swapped mqtt_swapped;
typedef struct mqtt_target mqtt_target;
typedef struct mqtt_info_request mqtt_info_request;
typedef struct mqtt_query mqtt_query;
typedef struct mqtt_subscribe_request mqtt_subscribe_request;
typedef struct mqtt_field mqtt_field;
typedef struct mqtt_transport mqtt_transport;
typedef struct mqtt_tls mqtt_tls;
typedef struct mqtt_certificate mqtt_certificate;
typedef struct mqtt_alternative_name mqtt_alternative_name;
typedef struct mqtt_http mqtt_http;
typedef struct mqtt_header mqtt_header;
typedef struct mqtt_unix_peer mqtt_unix_peer;
typedef struct mqtt_services mqtt_services;
typedef struct mqtt_host mqtt_host;
typedef struct mqtt_plugin mqtt_plugin;

/* A piece of an answer that is handed over as a whole: by complete, and to a mqtt_reply. */
struct mqtt_piece {
    /* Its bytes, if the key has some. */
    mqtt_bytes bytes;
    /* Its number, if the key has one. */
    uint64_t number;
    /* What it is. */
    mqtt_key key;
};

typedef struct mqtt_piece_slice {
    const mqtt_piece *data;
    size_t length;
} mqtt_piece_slice;

/* Where the host's answer to a request goes. A request that was taken (MQTT_STATUS_OK) is answered exactly once,
 * on any thread, even if the server stops; one that was not is not answered at all. It must not unwind, and must
 * not block. */
struct mqtt_reply {
    /* The first argument of `done`. */
    void *context;
    /* Context, how it ended, and the answer. */
    void (*done)(void *, mqtt_status, mqtt_piece_slice);
    /* MQTT_REPLY_WAITS, or nothing. */
    uint64_t flags;
};

/* The host's buffer for one answer: the plugin writes pieces into it, the host owns and reads them. */
struct mqtt_sink {
    void *context;
    void (*put)(void *, mqtt_key, uint64_t, mqtt_bytes);
};

/* The address of a peer, without padding or text. */
struct mqtt_peer {
    /* The address: 4 or 16 bytes of it, the rest zero. */
    uint8_t ip[16];
    /* Scope of an IPv6 address, otherwise 0. */
    uint32_t scope_id;
    /* TCP port. */
    uint16_t port;
    /* 4 or 6. */
    uint8_t family;
};

/* A Network Connection that has just been accepted. */
struct mqtt_connection_info {
    /* Name of the listener that accepted it. */
    mqtt_text listener;
    /* Number of the connection, unique while the server runs. */
    uint64_t connection;
    /* Who connected. */
    mqtt_peer peer;
    /* Null, or a mqtt_transport. */
    const void *extension;
};

/* A CONNECT packet. */
struct mqtt_connect {
    /* Client Identifier. */
    mqtt_text client_id;
    /* User Name, if MQTT_CONNECT_HAS_USERNAME. */
    mqtt_text username;
    /* Password, if MQTT_CONNECT_HAS_PASSWORD. */
    mqtt_bytes password;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* Will Message. */
    const mqtt_publish *will;
    /* Name of the listener. */
    mqtt_text listener;
    /* Number of the connection. */
    uint64_t connection;
    /* Who connected. */
    mqtt_peer peer;
    /* Keep Alive in seconds. */
    uint16_t keep_alive;
    /* 3, 4 or 5. */
    uint8_t protocol_version;
    /* The bits below. */
    uint8_t flags;
    /* Null, or a mqtt_transport. */
    const void *extension;
};

/* One step of an authentication exchange. */
struct mqtt_auth {
    /* Authentication Method. */
    mqtt_text method;
    /* Authentication Data, if MQTT_AUTH_HAS_DATA. */
    mqtt_bytes data;
    /* Encoded properties of the packet. */
    mqtt_bytes properties;
    /* The number of an MQTT_AUTH_STEP_.... */
    uint8_t step;
    /* The bit below. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A PUBLISH packet, or a Will Message. */
struct mqtt_publish {
    /* Topic Name. */
    mqtt_text topic;
    /* Application payload. */
    mqtt_bytes payload;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* Packet Identifier, 0 for none. */
    uint16_t packet_id;
    /* QoS. */
    uint8_t qos;
    /* The bits below. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

/* One entry of a SUBSCRIBE packet. */
struct mqtt_subscription {
    /* Topic Filter, without `$share/<name>/`. */
    mqtt_text filter;
    /* ShareName, if MQTT_SUBSCRIPTION_SHARED. */
    mqtt_text share_name;
    /* Requested QoS. */
    uint8_t qos;
    /* Retain Handling. */
    uint8_t retain_handling;
    /* The bits below. */
    uint8_t flags;
    /* The Reason Code as it stands before this plugin has answered. */
    uint8_t reason_code;
    /* Null; see the module documentation. */
    const void *extension;
};

typedef struct mqtt_subscription_slice {
    const mqtt_subscription *data;
    size_t length;
} mqtt_subscription_slice;

/* A SUBSCRIBE packet. */
struct mqtt_subscribe {
    /* Its entries, in order. */
    mqtt_subscription_slice subscriptions;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* Null; see the module documentation. */
    const void *extension;
};

typedef struct mqtt_text_slice {
    const mqtt_text *data;
    size_t length;
} mqtt_text_slice;

/* An UNSUBSCRIBE packet. */
struct mqtt_unsubscribe {
    /* Its Topic Filters as sent, in order. */
    mqtt_text_slice filters;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* Null; see the module documentation. */
    const void *extension;
};

/* An acknowledgement from the client. */
struct mqtt_ack {
    /* Packet Identifier. */
    uint16_t packet_id;
    /* The number of an MQTT_ACK_KIND_.... */
    uint8_t kind;
    /* Reason Code. */
    uint8_t reason_code;
    /* The token that the message was sent with, 0 for none. */
    uint64_t token;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A message for `handle_info` or `handle_event`. */
struct mqtt_info {
    /* What it is, in the plugin's own words. */
    mqtt_text kind;
    /* Its bytes. */
    mqtt_bytes data;
    /* The connection that sent it, if `sender` is MQTT_INFO_SENDER_CONNECTION. */
    uint64_t connection;
    /* The timer, if `sender` is MQTT_INFO_SENDER_TIMER. */
    uint64_t timer;
    /* Who sent it: one of `SENDER_…` below. */
    uint8_t sender;
    /* Null; see the module documentation. */
    const void *extension;
};

/* Why a connection ended. */
struct mqtt_disconnect {
    /* What there is to say beyond the numbers; may be empty. */
    mqtt_text text;
    /* The number of a MQTT_DISCONNECT_KIND_.... */
    uint8_t kind;
    /* Reason Code of the DISCONNECT packet, or the one that describes the end best. */
    uint8_t reason_code;
    /* Null; see the module documentation. */
    const void *extension;
};

/* An Application Message from a plugin. The host checks all of it. */
struct mqtt_message {
    /* Topic Name. */
    mqtt_bytes topic;
    /* Application payload. */
    mqtt_bytes payload;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* A number that comes back in `handle_puback`, 0 for none. */
    uint64_t token;
    /* QoS. */
    uint8_t qos;
    /* MQTT_PUBLISH_RETAIN. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A client that has got its CONNACK. */
struct mqtt_connected {
    /* Client Identifier. */
    mqtt_text client_id;
    /* Number of the connection. */
    uint64_t connection;
    /* Session Expiry Interval in force, in seconds. */
    uint32_t session_expiry;
    /* Keep Alive in force, in seconds. */
    uint16_t keep_alive;
    /* The bits below. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

typedef struct mqtt_u32_slice {
    const uint32_t *data;
    size_t length;
} mqtt_u32_slice;

/* A message on its way to one client. */
struct mqtt_deliver {
    /* Topic Name. */
    mqtt_text topic;
    /* Application payload. */
    mqtt_bytes payload;
    /* Encoded properties, without Subscription Identifiers and Topic Alias. */
    mqtt_bytes properties;
    /* Client Identifier of the receiver. */
    mqtt_text client_id;
    /* Name of the plugin that published it, if `origin` is MQTT_DELIVER_ORIGIN_PLUGIN. */
    mqtt_text plugin;
    /* Subscription Identifiers of the subscriptions that it matches. */
    mqtt_u32_slice identifiers;
    /* The token that it was sent with, 0 for none. */
    uint64_t token;
    /* QoS of this delivery. */
    uint8_t qos;
    /* The bits below. */
    uint8_t flags;
    /* Who published it: one of `ORIGIN_…` below. */
    uint8_t origin;
    /* Why it is delivered now: one of `CAUSE_…` below. */
    uint8_t cause;
    /* Null; see the module documentation. */
    const void *extension;
};

/* What has become of a message that was meant for one client. */
struct mqtt_message_notice {
    /* Client Identifier of the receiver. */
    mqtt_text client_id;
    /* Topic Name. */
    mqtt_text topic;
    /* Application payload. */
    mqtt_bytes payload;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* The token that it was sent with, 0 for none. */
    uint64_t token;
    /* Packet Identifier, 0 for none. */
    uint16_t packet_id;
    /* QoS of the delivery. */
    uint8_t qos;
    /* MQTT_DELIVER_RETAIN. */
    uint8_t flags;
    /* The number of a MQTT_DROP_REASON_..., if it was dropped. */
    uint8_t reason;
    /* Reason Code of the acknowledgement, if it was acknowledged. */
    uint8_t reason_code;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A retained message that was stored or removed. */
struct mqtt_retained {
    /* Topic Name. */
    mqtt_text topic;
    /* Application payload; empty if a message without one removed it. */
    mqtt_bytes payload;
    /* Encoded properties. */
    mqtt_bytes properties;
    /* QoS. */
    uint8_t qos;
    /* What has happened: one of the numbers below. */
    uint8_t change;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A state that was exported. */
struct mqtt_state {
    /* Its bytes. */
    mqtt_bytes bytes;
    /* Version of its schema, in the plugin's own counting. */
    uint32_t version;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A connection that goes over to another instance of a plugin. */
struct mqtt_swapped {
    /* The connection, as `connection_new` was shown it. */
    mqtt_connection_info info;
    /* Client Identifier. */
    mqtt_text client_id;
    /* Version of the plugin that the connection comes from. */
    mqtt_text from_version;
    /* Keep Alive in force, in seconds. */
    uint16_t keep_alive;
    /* 3, 4 or 5; 0 before CONNECT. */
    uint8_t protocol_version;
    /* The bits below. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

/* Whom a request of a plugin is about. */
struct mqtt_target {
    /* Client Identifier, if `kind` is MQTT_TARGET_CLIENT. The host checks it. */
    mqtt_bytes client_id;
    /* Number of a connection, if `kind` is MQTT_TARGET_CONNECTION. */
    uint64_t connection;
    /* One of the numbers below. */
    uint8_t kind;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A message for `handle_info` or `handle_event`, now or later. */
struct mqtt_info_request {
    /* Who gets it. */
    mqtt_target target;
    /* What it is, in the plugin's own words: UTF-8. */
    mqtt_bytes kind;
    /* Its bytes. */
    mqtt_bytes data;
    /* When, in milliseconds from now; 0 is at once. */
    uint64_t delay_ms;
    /* Again and again, in this distance in milliseconds; 0 is once. */
    uint64_t interval_ms;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A question about what the server holds. */
struct mqtt_query {
    /* Whose: a connection, a client, or all. */
    mqtt_target target;
    /* Only topics that match this Topic Filter (retained), or this very filter (subscriptions); empty for all. */
    mqtt_bytes filter;
    /* Where the page begins: what MQTT_KEY_CURSOR of the page before carried; empty for the first. */
    mqtt_bytes cursor;
    /* Number of MQTT_KEY_CURSOR of the page before; 0 for the first. */
    uint64_t cursor_number;
    /* Rows of this page at most. */
    uint32_t limit;
    /* What is asked for: one of the numbers below. */
    uint8_t kind;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A subscription that a plugin makes or ends for a client. */
struct mqtt_subscribe_request {
    /* Whose. */
    mqtt_target target;
    /* Topic Filter as a client would write it, `$share/…` included. */
    mqtt_bytes filter;
    /* Subscription Identifier, 0 for none. */
    uint32_t identifier;
    /* Maximum QoS. */
    uint8_t qos;
    /* Retain Handling. */
    uint8_t retain_handling;
    /* MQTT_SUBSCRIPTION_NO_LOCAL and MQTT_SUBSCRIPTION_RETAIN_AS_PUBLISHED. */
    uint8_t flags;
    /* Null; see the module documentation. */
    const void *extension;
};

/* A field of a log line. */
struct mqtt_field {
    /* Its name. */
    mqtt_bytes name;
    /* Its value, as text. */
    mqtt_bytes value;
};

/* How a connection comes to the host, and what is known of the peer besides its address. The `extension` of
 * mqtt_connection_info and of mqtt_connect points to one, or is null: for plain TCP, and in hosts before 1.1. */
struct mqtt_transport {
    /* Bytes of this struct. What lies behind them is absent. */
    size_t size;
    /* The number of a MQTT_TRANSPORT_KIND_.... */
    uint64_t kind;
    /* What TLS has agreed on, if it is TLS. */
    const mqtt_tls *tls;
    /* The request that a WebSocket began with. It is there until CONNECT has been answered, not after a swap. */
    const mqtt_http *http;
    /* Who is behind a Unix domain socket. */
    const mqtt_unix_peer *unix_peer;
    /* Where the connection really comes from, if a proxy has told the address of the peer. */
    const mqtt_peer *proxy;
};

/* What TLS has agreed on. */
struct mqtt_tls {
    /* Bytes of this struct. What lies behind them is absent. */
    size_t size;
    /* Such as `TLSv1.3`; empty if that is not known, as when a proxy has ended TLS. */
    mqtt_text version;
    /* The name of the cipher suite in IANA's registry, such as `TLS13_AES_128_GCM_SHA256`; empty if it is not
     * known. */
    mqtt_text cipher_suite;
    /* The server's name that the client has asked for (SNI); empty if it has not. */
    mqtt_text server_name;
    /* The protocol that was agreed on (ALPN); empty if there is none. */
    mqtt_bytes alpn;
    /* The client's certificate, if it has shown one. It has been verified. */
    const mqtt_certificate *certificate;
};

typedef struct mqtt_alternative_name_slice {
    const mqtt_alternative_name *data;
    size_t length;
} mqtt_alternative_name_slice;

/* A client's certificate that has been verified. */
struct mqtt_certificate {
    /* Bytes of this struct. What lies behind them is absent. */
    size_t size;
    /* Its subject, as text by RFC 4514: `CN=sensor-7,O=Example`. */
    mqtt_text subject;
    /* The first common name of the subject; empty if there is none. */
    mqtt_text common_name;
    /* Subject alternative names, in their order. */
    mqtt_alternative_name_slice alternative_names;
    /* SHA-256 of its encoding. */
    uint8_t sha256[32];
    /* Its serial number, the most significant byte first. */
    mqtt_bytes serial;
    /* When it expires, in seconds since 1970, UTC. */
    uint64_t not_after;
};

/* A subject alternative name. */
struct mqtt_alternative_name {
    /* The name; an IP address as text. */
    mqtt_text name;
    /* The number of a MQTT_NAME_KIND_.... */
    uint64_t kind;
    /* Null; see the module documentation. */
    const void *extension;
};

typedef struct mqtt_header_slice {
    const mqtt_header *data;
    size_t length;
} mqtt_header_slice;

/* The request that a WebSocket began with. */
struct mqtt_http {
    /* Bytes of this struct. What lies behind them is absent. */
    size_t size;
    /* What stood between method and version: path and query. */
    mqtt_text path;
    /* Headers in their order. */
    mqtt_header_slice headers;
};

/* A header of an HTTP request. */
struct mqtt_header {
    /* Its name as it was sent: capital letters make no difference. */
    mqtt_text name;
    /* Its value, which need not be UTF-8. */
    mqtt_bytes value;
    /* Null; see the module documentation. */
    const void *extension;
};

/* Who is behind a Unix domain socket, as the kernel says. */
struct mqtt_unix_peer {
    /* Bytes of this struct. What lies behind them is absent. */
    size_t size;
    /* User. */
    uint64_t uid;
    /* Group. */
    uint64_t gid;
    /* Process; 0 for one that the host does not see, as it is in another namespace (a container). */
    uint64_t pid;
};

typedef struct mqtt_field_slice {
    const mqtt_field *data;
    size_t length;
} mqtt_field_slice;

/* What the host does for a plugin. Every function may be called on any thread. */
struct mqtt_services {
    /* MQTT_ABI_MAJOR: with another one, nothing that follows means anything. */
    uint32_t abi_major;
    /* MQTT_ABI_MINOR. */
    uint32_t abi_minor;
    /* Bytes of the table. What lies behind them is absent. */
    size_t size;
    /* Whether a line of this level (1 error … 5 trace) would be written. */
    bool (*log_enabled)(void *, uint8_t);
    /* Writes a line: level, target (empty: the plugin), text, fields. */
    void (*log)(void *, uint8_t, mqtt_bytes, mqtt_bytes, mqtt_field_slice);
    /* Reports a panic on the calling thread, from the plugin's panic hook: text, location, name of the thread
     * (empty: it has none; only the copy of `std` that started a thread knows its name). */
    void (*panicked)(void *, mqtt_bytes, mqtt_bytes, mqtt_bytes);
    /* Publishes a message. */
    mqtt_status (*publish)(void *, const mqtt_message *);
    /* Sends a message to one connection or client, whatever it has subscribed to. */
    mqtt_status (*send)(void *, const mqtt_target *, const mqtt_message *);
    /* Sends a message to `handle_info` or `handle_event`. The number of its timer is written, 0 if it goes at
     * once. */
    mqtt_status (*send_info)(void *, const mqtt_info_request *, uint64_t *);
    /* Stops a timer, by its number. */
    mqtt_status (*cancel_timer)(void *, uint64_t);
    /* Disconnects a Network Connection: its number, Reason Code, encoded properties. */
    mqtt_status (*disconnect)(void *, uint64_t, uint8_t, mqtt_bytes);
    /* Takes a ticket for the callback that runs on this thread, and writes its number. The callback has to return
     * MQTT_VERDICT_DEFERRED then. */
    mqtt_status (*ticket)(void *, uint64_t *);
    /* Answers by a ticket, once, on any thread: its number, the verdict, the pieces that would have gone into the
     * sink. */
    mqtt_status (*complete)(void *, uint64_t, mqtt_verdict, mqtt_piece_slice);
    /* Asks what the server holds. */
    mqtt_status (*query)(void *, const mqtt_query *, mqtt_reply);
    /* Subscribes for a client. */
    mqtt_status (*subscribe)(void *, const mqtt_subscribe_request *, mqtt_reply);
    /* Ends a subscription of a client. */
    mqtt_status (*unsubscribe)(void *, const mqtt_subscribe_request *, mqtt_reply);
    /* Has the subscriptions of a connection, a client or all asked about again. */
    mqtt_status (*reauthorise)(void *, const mqtt_target *, mqtt_reply);
    /* Reads the value of a key into the sink. */
    mqtt_status (*kv_get)(void *, mqtt_bytes, mqtt_sink);
    /* Sets the value of a key. */
    mqtt_status (*kv_put)(void *, mqtt_bytes, mqtt_bytes);
    /* Removes a key. */
    mqtt_status (*kv_delete)(void *, mqtt_bytes);
    /* Reads keys in order: those that begin with the first argument, behind the second one (empty: from the
     * start), at most as many as the third says. */
    mqtt_status (*kv_list)(void *, mqtt_bytes, mqtt_bytes, uint32_t, mqtt_sink);
    /* Finds or makes a metric: kind (MQTT_METRIC_COUNTER …), name, help. It is never freed. Null: refused. */
    void *(*metric)(void *, uint8_t, mqtt_bytes, mqtt_bytes);
    /* Adds to a counter, sets a gauge, or puts a value into a histogram. The first argument is the metric. */
    void (*metric_record)(void *, double);
};

/* The host's services together with the context they need. */
struct mqtt_host {
    void *context;
    const mqtt_services *services;
};

/* A plugin. Functions that take a connection's state are called by one thread at a time for each state; all
 * others may be called by several threads at once. An instance outlives the states that it made. */
struct mqtt_plugin {
    /* MQTT_ABI_MAJOR: with another one, nothing that follows means anything. */
    uint32_t abi_major;
    /* MQTT_ABI_MINOR. */
    uint32_t abi_minor;
    /* Bytes of the table. What lies behind them is absent. */
    size_t size;
    /* Name by which logs and commands address it. */
    mqtt_text name;
    /* The plugin's own version. */
    mqtt_text version;
    /* MQTT_FLAG_UNWINDS and MQTT_FLAG_SWAP_DISCONNECTS. */
    uint64_t flags;
    /* The callbacks it implements: one bit for each MQTT_CALLBACK_.... */
    uint64_t callbacks;
    /* Those of them that may block: the host calls them on threads of a pool. */
    uint64_t blocking;
    /* Makes an instance from the host's services and a JSON text. Null: refused, the text in the sink says why;
     * its piece carries the number of MQTT_VERDICT_ERROR or MQTT_VERDICT_PANICKED. */
    void *(*instance_new)(mqtt_host, mqtt_text, mqtt_sink);
    /* Tells an instance, once, that it is about to be dropped. */
    mqtt_verdict (*instance_stop)(void *, mqtt_sink);
    /* Drops an instance. */
    mqtt_verdict (*instance_drop)(void *, mqtt_sink);
    /* Makes the state of a connection. Null: it panicked. */
    void *(*connection_new)(void *, const mqtt_connection_info *, mqtt_sink);
    /* Drops the state of a connection. */
    mqtt_verdict (*connection_drop)(void *, mqtt_sink);
    /* `handle_connect`: instance, state, view, sink; the same order in all that follow. */
    mqtt_verdict (*connect)(void *, void *, const mqtt_connect *, mqtt_sink);
    /* `handle_auth`. */
    mqtt_verdict (*auth)(void *, void *, const mqtt_auth *, mqtt_sink);
    /* `handle_publish`. */
    mqtt_verdict (*publish)(void *, void *, const mqtt_publish *, mqtt_sink);
    /* `handle_subscribe`. */
    mqtt_verdict (*subscribe)(void *, void *, const mqtt_subscribe *, mqtt_sink);
    /* `handle_unsubscribe`. */
    mqtt_verdict (*unsubscribe)(void *, void *, const mqtt_unsubscribe *, mqtt_sink);
    /* `handle_puback`. */
    mqtt_verdict (*puback)(void *, void *, const mqtt_ack *, mqtt_sink);
    /* `handle_info`. */
    mqtt_verdict (*info)(void *, void *, const mqtt_info *, mqtt_sink);
    /* `handle_disconnect`. */
    mqtt_verdict (*disconnect)(void *, void *, const mqtt_disconnect *, mqtt_sink);
    /* `handle_session_expired`: instance, Client Identifier, the last exported state, sink. */
    mqtt_verdict (*session_expired)(void *, mqtt_text, const mqtt_state *, mqtt_sink);
    /* `handle_connected`. */
    mqtt_verdict (*connected)(void *, void *, const mqtt_connected *, mqtt_sink);
    /* `handle_deliver`. */
    mqtt_verdict (*deliver)(void *, void *, const mqtt_deliver *, mqtt_sink);
    /* `handle_message_dropped`: instance, view, sink; the same order in the next three. */
    mqtt_verdict (*message_dropped)(void *, const mqtt_message_notice *, mqtt_sink);
    /* `handle_message_acknowledged`. */
    mqtt_verdict (*message_acknowledged)(void *, const mqtt_message_notice *, mqtt_sink);
    /* `handle_message_expired`. */
    mqtt_verdict (*message_expired)(void *, const mqtt_message_notice *, mqtt_sink);
    /* `handle_retained`. */
    mqtt_verdict (*retained)(void *, const mqtt_retained *, mqtt_sink);
    /* `handle_event`. */
    mqtt_verdict (*event)(void *, const mqtt_info *, mqtt_sink);
    /* `handle_config`: instance, JSON, sink. */
    mqtt_verdict (*config)(void *, mqtt_text, mqtt_sink);
    /* `health`: MQTT_VERDICT_OK or MQTT_VERDICT_ERROR, with a text in the sink. */
    mqtt_verdict (*health)(void *, mqtt_sink);
    /* `handle_swapped`: instance, state, view, sink. */
    mqtt_verdict (*swapped)(void *, void *, const mqtt_swapped *, mqtt_sink);
    /* Writes the state of a connection into the sink, as MQTT_KEY_STATE: instance, state, sink. */
    mqtt_verdict (*export_state)(void *, void *, mqtt_sink);
    /* Makes the state of a connection from one that was exported. Null: the text in the sink says why, with the
     * number of MQTT_VERDICT_ERROR or MQTT_VERDICT_PANICKED. */
    void *(*import_state)(void *, const mqtt_swapped *, const mqtt_state *, mqtt_sink);
    /* Writes the plugin's own state into the sink. */
    mqtt_verdict (*export_plugin_state)(void *, mqtt_sink);
    /* Takes over the plugin's own state. */
    mqtt_verdict (*import_plugin_state)(void *, const mqtt_state *, mqtt_sink);
    /* Says that nobody waits for an answer by this ticket any more: instance, ticket, sink. */
    mqtt_verdict (*cancelled)(void *, uint64_t, mqtt_sink);
    /* Since 1.2. Looks at a configuration before there is an instance: JSON, sink. MQTT_VERDICT_ERROR: it cannot
     * be used, and the text in the sink says where and why. */
    mqtt_verdict (*config_check)(mqtt_text, mqtt_sink);
    /* Since 1.2. Writes the JSON Schema of the configuration into the sink, as text; nothing if there is none. */
    mqtt_verdict (*config_schema)(mqtt_sink);
};

/* The name of the symbol, and what its table begins with. */
#define MQTT_PLUGIN_SYMBOL mqtt_handler_plugin
#define MQTT_PLUGIN_HEAD .abi_major = MQTT_ABI_MAJOR, .abi_minor = MQTT_ABI_MINOR, .size = sizeof(mqtt_plugin)

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const mqtt_plugin MQTT_PLUGIN_SYMBOL;

/* Text and bytes of a string literal, for initialisers. */
#define MQTT_TEXT(literal) { (const uint8_t *)(literal), sizeof(literal) - 1 }

/* The bit of a callback in `callbacks` and `blocking`. */
#define MQTT_CALLBACK_BIT(callback) (UINT64_C(1) << (callback))

/* Whether a table of the host's has an entry: tables of older hosts end earlier. */
#define MQTT_HAS_SERVICE(host, entry) \
    ((host).services->size >= offsetof(mqtt_services, entry) + sizeof((host).services->entry))

/* Whether a struct that begins with its `size` has a field: those of older hosts end earlier. `type` is that of the struct. */
#define MQTT_HAS_FIELD(type, pointer, field) \
    ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

#ifdef __cplusplus
}
#endif

#endif
