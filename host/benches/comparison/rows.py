"""The rows of the comparison, in groups: what `host bench` is asked for, and which ratio to whom is the goal."""

from collections import namedtuple

# Who is ours, in the table.
OURS, MOSQUITTO, FLOOR = "host", "Mosquitto", "floor"
# The same on two cores, which they share with the load.
ONE_WORKER, TWO_WORKERS = "1 worker", "2 workers"
# The same with what promises something waiting for nothing, for the operating system, for the disk; Mosquitto, which writes all
# that it keeps when it ends.
NONE, BUFFERED, FSYNC, PERSISTENT = "none", "buffered", "fsync", "Mosquitto, persistence"

# Who is compared: everybody; ours with one worker and with two, on both cores with the load; ours with and without a store.
EVERYBODY, WORKERS, DURABILITY = "everybody", "workers", "durability"

# What `host bench` is asked for. Some are measured so often, and not as often as the others. What is spoken: tcp, tls, ws or wss.
Load = namedtuple("Load", "words rounds_max about transport", defaults=(99, EVERYBODY, "tcp"))

# A figure of a load. `value` finds it in what `host bench` says; a row that has `of_rows` makes it from theirs.
Row = namedtuple("Row", "name load unit value goal of of_rows", defaults=(None, FLOOR, None))

# Transports with TLS, and with WebSocket.
TLS, WEBSOCKET = ("tls", "wss"), ("ws", "wss")

# Its heading is one of bounds.md as well.
Group = namedtuple("Group", "heading rows")

# Loads that run for a time, and those that are warmed up before.
WARMED_UP = ["fan-out", "fan-in", "pairs", "wildcard", "shared", "latency", "ping", "storm", "beside", "handshakes"]
TIMED = [*WARMED_UP, "connect", "idle"]
# Loads whose latency is what counts. Who sleeps has to be woken, and latency is what people have who do sleep.
OF_LATENCY = ["latency", "storm", "beside", "handshakes"]
# Those of them that may have real-time priority. Threads that disturb others could not give way to them then.
OF_PRIORITY = ["latency"]
# Steps that disturb others, and give way to them.
DISTURBING = ["storm", "fan-out", "shaking", "handshakes"]

PER_MESSAGE = "CPU µs per message"


def traffic(name, words, goal=None, of=FLOOR):
    """CPU time for each message that the broker receives or delivers."""
    return Row(name, Load(words), PER_MESSAGE, lambda result: result["broker"]["cpu_us_per_message"], goal, of)


def step(name, words, step_name, goal, unit, figure="cpu_us_per_operation", rounds_max=99):
    """A row about one step of a load that has several. It has no floor."""
    def value(result):
        return of_step(result, step_name)["broker"][figure]
    return Row(name, Load(words, rounds_max), unit, value, goal, MOSQUITTO)


def memory(name, words, step_name, goal=None, rounds_max=99):
    return step(name, words, step_name, goal, "bytes", "rss_bytes_per_operation", rounds_max)


def of_step(result, name):
    return next(part for part in result["steps"] if part["step"] == name)


def latency(name, words):
    """How long messages take that are sent at fixed times, each counted from its time."""
    def quantile(key):
        return lambda result: result["latency_us"][key]
    quantiles = {"half of them": "p50", "99 %": "p99", "99.9 %": "p99_9"}
    return [Row(f"{name}: {part} within", Load(words), "µs", quantile(key)) for part, key in quantiles.items()]


def disturbed(name, words, step_name):
    """How long messages between pairs take, alone and beside something else."""
    def quantile(step_name, key):
        return lambda result: of_step(result, step_name)["latency_us"][key]
    return [Row(f"{name}, {what}: {part} within", Load(words), "µs", quantile(of, key))
            for part, key in {"99 %": "p99", "99.9 %": "p99_9"}.items()
            for what, of in {"before": "alone", "meanwhile": step_name}.items()]


def workers(name, words):
    """A row of ours with one and with two workers."""
    return traffic(name, words)._replace(load=Load(words, about=WORKERS), of=ONE_WORKER)


def durable(name, words, goal=None):
    """A row of ours with and without a store."""
    return traffic(name, words, goal)._replace(load=Load(words, about=DURABILITY), of=NONE)


def over(transport, *rows):
    """The same rows over another transport. Whoever has a goal there has it of Mosquitto."""
    return [row._replace(load=row.load._replace(transport=transport), of=MOSQUITTO) for row in rows]


def batched(transport, shapes):
    """Rows in which many messages are on their way at once: a third of what they cost Mosquitto is the goal."""
    return over(transport, *(traffic(f"{name}, {transport}", words, 0.333) for name, words in shapes.items()))


def beside_handshakes(name, words):
    """How long messages of others take while very many TLS handshakes come, and while something spins for as long."""
    def quantile(step_name):
        return lambda result: of_step(result, step_name)["latency_us"]["p99"]
    steps = {"alone": "alone", "beside something that spins": "spinning", "beside the handshakes": "shaking"}
    rows = [Row(f"{name}, {what}: 99 % within", Load(words), "µs", quantile(of)) for what, of in steps.items()]
    return [*rows, Row(f"{name}: the last by the one before", Load(words), "times", lambda result: result["p99_ratio"])]


def between(name, few, many, unit="bytes"):
    """What each has beyond the first ones, where two rows have figures for so many."""
    (few_row, few_count), (many_row, many_count) = few, many
    def value(per_few, per_many):
        return (per_many * many_count - per_few * few_count) / (many_count - few_count)
    return Row(name, many_row.load, unit, value, of=MOSQUITTO, of_rows=(few_row, many_row))


RETAINED = "retained --messages 100000"
OFFLINE = "offline --sessions 100 --messages 1000"
SHARED_QUEUE = "offline --sessions 100 --messages 1000 --one-topic"
MILLION_FILTERS = "subscribe --filters 1000000"
MILLION_RETAINED = "retained --messages 1000000 --subscribers 1"
STORM = "storm --rate 5000"
BESIDE = "beside --rate 5000 --fan-out-rate 2"

IDLE = {count: memory(f"an idle connection, of {count:,}", f"idle --connections {count}", "connect", goal, rounds_max)
        for count, goal, rounds_max in ((1000, None, 1), (10_000, 0.68, 99), (19_000, None, 1))}

FAN_OUTS = {
    "fan-out 1→100, QoS 0, 16 B": "fan-out --subscribers 100 --window 200",
    "fan-out 1→100, QoS 0, 1 KiB": "fan-out --subscribers 100 --window 200 --payload 1024",
    "fan-out 1→1000, QoS 1, 256 B": "fan-out --subscribers 1000 --window 200 --payload 256 --qos 1",
}
FROM_MANY = {
    "fan-in 100→1, QoS 1, 16 B": "fan-in --publishers 100 --window 32 --qos 1",
    "100 pairs, QoS 0, 16 B": "pairs --pairs 100 --window 32",
    "100 pairs, QoS 1, 16 B": "pairs --pairs 100 --window 32 --qos 1",
    "100 pairs, QoS 0, 1 KiB": "pairs --pairs 100 --window 32 --payload 1024",
}
ONE_AT_A_TIME = traffic("500 pairs, QoS 0, 256 B, one at a time", "pairs --pairs 500 --window 1 --payload 256")
IDLE_LAYERED = memory("an idle connection, of 2,000", "idle --connections 2000 --at-once 8", "connect", 1.0, rounds_max=1)
CONNECT_LAYERED = step("accept and CONNECT", "connect --at-once 8", "connect", None, "CPU µs per client")

GROUPS = [
    Group("Fan-out", [
        traffic("fan-out 1→100, QoS 0, 16 B", "fan-out --subscribers 100 --window 200", 1.39),
        traffic("fan-out 1→100, QoS 0, 256 B", "fan-out --subscribers 100 --window 200 --payload 256", 1.11),
        traffic("fan-out 1→100, QoS 0, 1 KiB", "fan-out --subscribers 100 --window 200 --payload 1024", 1.17),
        traffic("fan-out 1→100, QoS 1, 16 B", "fan-out --subscribers 100 --window 200 --qos 1", 1.39),
        traffic("fan-out 1→1000, QoS 0, 16 B", "fan-out --subscribers 1000 --window 200", 1.0),
        traffic("fan-out 1→1000, QoS 0, 1 KiB", "fan-out --subscribers 1000 --window 200 --payload 1024", 1.31),
        traffic("fan-out 1→1000, QoS 1, 256 B", "fan-out --subscribers 1000 --window 200 --payload 256 --qos 1", 1.05),
    ]),
    Group("Fan-in and pairs, QoS 0", [
        traffic("fan-in 100→1, QoS 0, 16 B", "fan-in --publishers 100 --window 32", 1.41),
        traffic("100 pairs, QoS 0, 16 B", "pairs --pairs 100 --window 32", 1.18),
        traffic("100 pairs, QoS 0, 1 KiB", "pairs --pairs 100 --window 32 --payload 1024", 1.08),
        traffic("500 pairs, QoS 0, 256 B", "pairs --pairs 500 --window 32 --payload 256", 1.2),
    ]),
    Group("Fan-in and pairs, QoS 1", [
        traffic("fan-in 100→1, QoS 1, 16 B", "fan-in --publishers 100 --window 32 --qos 1", 1.67),
        traffic("100 pairs, QoS 1, 16 B", "pairs --pairs 100 --window 32 --qos 1", 1.4),
        traffic("500 pairs, QoS 1, 256 B", "pairs --pairs 500 --window 32 --payload 256 --qos 1", 1.29),
    ]),
    Group("Fan-in and pairs, QoS 2", [
        traffic("fan-in 100→1, QoS 2, 16 B", "fan-in --publishers 100 --window 32 --qos 2", 1.67),
        traffic("100 pairs, QoS 2, 16 B", "pairs --pairs 100 --window 32 --qos 2", 1.4),
        traffic("500 pairs, QoS 2, 256 B", "pairs --pairs 500 --window 32 --payload 256 --qos 2", 1.27),
    ]),
    Group("One at a time", [
        traffic("fan-out 1→1000, QoS 0, 256 B, one at a time", "fan-out --subscribers 1000 --window 1 --payload 256", 0.82),
        traffic("500 pairs, QoS 0, 256 B, one at a time", "pairs --pairs 500 --window 1 --payload 256", 0.97),
        traffic("500 pairs, QoS 1, 256 B, one at a time", "pairs --pairs 500 --window 1 --payload 256 --qos 1", 0.95),
    ]),
    Group("Wildcards and subscriptions", [
        traffic("10,000 filters with wildcards", "wildcard --filters 10000", 0.047, MOSQUITTO),
        traffic("100,000 filters with wildcards", "wildcard --filters 100000", 0.073, MOSQUITTO),
        step("SUBSCRIBE, up to 100,000 filters", "subscribe --filters 100000", "subscribe", 0.31, "CPU µs per filter"),
        step("SUBSCRIBE, up to 1,000,000 filters", MILLION_FILTERS, "subscribe", None, "CPU µs per filter", rounds_max=1),
    ]),
    Group("Shared, retained and offline", [
        traffic("$share, 4 members, QoS 0", "shared --members 4", 0.024, MOSQUITTO),
        traffic("$share, 4 members, QoS 1", "shared --members 4 --qos 1", 0.021, MOSQUITTO),
        step("replay of 100,000 retained messages", RETAINED, "replay", 0.027, PER_MESSAGE),
        memory("a retained message, payload of 16 B", RETAINED, "store", 0.54),
        step("replay of 1,000,000 retained messages", MILLION_RETAINED, "replay", None, PER_MESSAGE, rounds_max=1),
        memory("a retained message, of 1,000,000", MILLION_RETAINED, "store", rounds_max=1),
        step("enqueue for an offline session", OFFLINE, "enqueue", 0.038, PER_MESSAGE),
        step("drain of an offline session", OFFLINE, "drain", 0.073, PER_MESSAGE),
        memory("a queued message that one waits for", OFFLINE, "enqueue"),
        memory("a queued message that many wait for", SHARED_QUEUE, "enqueue", 0.23),
    ]),
    Group("CONNECT and PINGREQ", [
        step("accept and CONNECT", "connect", "connect", 0.63, "CPU µs per client"),
        step("PINGREQ", "ping", "ping", 0.73, "CPU µs per PINGREQ"),
    ]),
    Group("Large payloads", [
        traffic("fan-out 1→20, QoS 0, 64 KiB", "fan-out --subscribers 20 --window 8 --payload 65536"),
        traffic("10 pairs, QoS 0, 200 KB", "pairs --pairs 10 --window 2 --payload 200000"),
    ]),
    Group("Memory", [
        *IDLE.values(),
        between("each connection from 10,000 to 19,000", (IDLE[10_000], 10_000), (IDLE[19_000], 19_000)),
        memory("a subscription, of 1,000,000", MILLION_FILTERS, "subscribe", rounds_max=1),
    ]),
    Group("TLS", [
        *batched("tls", FAN_OUTS | FROM_MANY),
        *over("tls", ONE_AT_A_TIME, IDLE_LAYERED, CONNECT_LAYERED),
        *over("tls", *beside_handshakes("2,000 handshakes at once", "handshakes --rate 2000")),
    ]),
    Group("WebSocket", [
        *batched("ws", FAN_OUTS | FROM_MANY),
        *over("ws", ONE_AT_A_TIME, IDLE_LAYERED, CONNECT_LAYERED),
    ]),
    Group("WebSocket over TLS", [
        *batched("wss", FAN_OUTS | FROM_MANY),
        *over("wss", IDLE_LAYERED),
    ]),
    Group("Latency", [
        *latency("5,000 messages a second", "latency --rate 5000"),
        *latency("50,000 messages a second", "latency --rate 50000"),
        *disturbed("a storm of subscriptions", STORM, "in storm"),
        *disturbed("a fan-out to 10,000", BESIDE, "beside"),
    ]),
    Group("Durability", [
        durable("100 pairs, QoS 1, 16 B, sessions kept", "pairs --pairs 100 --window 32 --qos 1 --keep-sessions", 1.5),
        durable("500 pairs, QoS 1, 256 B, sessions kept", "pairs --pairs 500 --window 32 --payload 256 --qos 1 --keep-sessions", 1.5),
        durable("100 pairs, QoS 2, 16 B, sessions kept", "pairs --pairs 100 --window 32 --qos 2 --keep-sessions"),
        durable("fan-out 1→100, QoS 1, 16 B, sessions kept", "fan-out --subscribers 100 --window 200 --qos 1 --keep-sessions"),
        durable("500 pairs, QoS 1, 256 B, sessions kept, one at a time", "pairs --pairs 500 --window 1 --payload 256 --qos 1 --keep-sessions"),
        durable("100 pairs, QoS 1, 16 B, sessions not kept", "pairs --pairs 100 --window 32 --qos 1"),
        durable("100 pairs, QoS 0, 16 B", "pairs --pairs 100 --window 32"),
    ]),
    Group("Workers", [
        workers("fan-out 1→100, QoS 0, 16 B", "fan-out --subscribers 100 --window 200"),
        workers("fan-out 1→1000, QoS 1, 256 B", "fan-out --subscribers 1000 --window 200 --payload 256 --qos 1"),
        workers("fan-in 100→1, QoS 1, 16 B", "fan-in --publishers 100 --window 32 --qos 1"),
        workers("100 pairs, QoS 0, 16 B", "pairs --pairs 100 --window 32"),
        workers("100 pairs, QoS 1, 16 B", "pairs --pairs 100 --window 32 --qos 1"),
        workers("500 pairs, QoS 2, 256 B", "pairs --pairs 500 --window 32 --payload 256 --qos 2"),
        workers("$share, 4 members, QoS 1", "shared --members 4 --qos 1"),
    ]),
]
