"""The driver of centrifuge-python: clients that read their orders from stdin and write their events to stdout, as
described in ../driver.mjs."""

import asyncio
import json
import os
import sys
import threading
import traceback

import centrifuge


class Client(centrifuge.ClientEventHandler):
    def __init__(self, order):
        self.key = order["client"]
        self.is_protobuf = order["encoding"] == "protobuf"
        self.asked = None  # the future of the SDK's pending get_token
        self.asked_states = {}  # and get_state, by channel
        more = {"max_server_ping_delay": order["pingDelay"] / 1000} if "pingDelay" in order else {}
        self.sdk = centrifuge.Client(
            order["url"],
            events=self,
            token=order["token"],
            get_token=self.ask_for_token if order.get("getToken") else None,
            use_protobuf=self.is_protobuf,
            timeout=order["timeout"] / 1000,
            min_reconnect_delay=order["minDelay"] / 1000,
            max_reconnect_delay=order["maxDelay"] / 1000,
            **more,
        )

    def emit(self, event, **more):
        write({"client": self.key, "event": event, **more})

    def encode(self, value):
        """Payloads are JSON values in the JSON encoding, and bytes with JSON in Protobuf."""
        return json.dumps(value).encode() if self.is_protobuf else value

    def decode(self, data):
        return json.loads(data) if self.is_protobuf and data else data or None

    async def ask_for_token(self):
        self.asked = asyncio.get_running_loop().create_future()
        self.emit("token")
        return await self.asked

    async def ask_for_state(self, channel):
        self.asked_states[channel] = asyncio.get_running_loop().create_future()
        self.emit("state", channel=channel)
        return await self.asked_states[channel]

    # ---- events of the SDK

    async def on_connecting(self, ctx):
        self.emit("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx):
        self.emit("connected", id=ctx.client)

    async def on_disconnected(self, ctx):
        self.emit("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx):
        self.emit("error", code=ctx.code, message=str(ctx.error))

    # ---- orders

    async def open(self, _):
        await self.sdk.connect()

    async def token(self, order):
        self.asked.set_result(order["token"])

    async def state(self, order):
        self.asked_states[order["channel"]].set_result(position(order["position"]))

    async def subscribe(self, order):
        subscription = self.sdk.new_subscription(
            order["channel"],
            events=Subscription(self, order["channel"]),
            join_leave=order.get("joinLeave", False),
            delta=centrifuge.DeltaType(order["delta"]) if "delta" in order else None,
            tags_filter=centrifuge.Filter.eq("a", "b") if order.get("tagsFilter") else None,
            get_state=self.ask_for_state if order.get("getState") else None,
            min_resubscribe_delay=order["minDelay"] / 1000,
            max_resubscribe_delay=order["maxDelay"] / 1000,
        )
        await subscription.subscribe()

    async def unsubscribe(self, order):
        await self.sdk.get_subscription(order["channel"]).unsubscribe()

    async def close(self, _):
        await self.sdk.disconnect()

    async def call(self, order):
        answer = {"client": self.key, "call": order["call"]}
        try:
            answer["result"] = await getattr(self, "call_" + order["do"])(order)
        except Exception as error:  # every failure is an answer
            answer["error"] = {"code": getattr(error, "code", 0), "message": repr(error)}
        write(answer)

    async def call_publish(self, order):
        await self.sdk.get_subscription(order["channel"]).publish(self.encode(order["data"]))
        return {}

    async def call_history(self, order):
        result = await self.sdk.get_subscription(order["channel"]).history(
            limit=order["limit"],
            since=position(order["since"]) if "since" in order else None,
            reverse=order.get("reverse", False),
        )
        publications = [publication(self, it) for it in result.publications]
        return {"publications": publications, "offset": result.offset, "epoch": result.epoch}

    async def call_presence(self, order):
        result = await self.sdk.get_subscription(order["channel"]).presence()
        return {"users": {key: info.user for key, info in result.clients.items()}}

    async def call_presenceStats(self, order):
        result = await self.sdk.get_subscription(order["channel"]).presence_stats()
        return {"clients": result.num_clients, "users": result.num_users}

    async def call_rpc(self, order):
        result = await self.sdk.rpc(order["method"], self.encode(order["data"]))
        return {"data": self.decode(result.data)}


class Subscription(centrifuge.SubscriptionEventHandler):
    def __init__(self, client, channel):
        self.client = client
        self.channel = channel

    def emit(self, event, **more):
        self.client.emit(event, channel=self.channel, **more)

    async def on_subscribed(self, ctx):
        data = self.client.decode(ctx.data)
        self.emit("subscribed", wasRecovering=ctx.was_recovering, recovered=ctx.recovered, data=data)

    async def on_unsubscribed(self, ctx):
        self.emit("unsubscribed", code=ctx.code, reason=ctx.reason)

    async def on_publication(self, ctx):
        self.emit("publication", **publication(self.client, ctx.pub))

    async def on_join(self, ctx):
        self.emit("join", user=ctx.info.user)

    async def on_leave(self, ctx):
        self.emit("leave", user=ctx.info.user)

    async def on_error(self, ctx):
        self.emit("error", code=ctx.code, message=str(ctx.error))


def position(it):
    return centrifuge.StreamPosition(it["offset"], it["epoch"])


def publication(client, it):
    return {"data": client.decode(it.data), "offset": it.offset, "user": it.info.user if it.info else None}


def write(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main():
    loop = asyncio.get_running_loop()
    orders = asyncio.Queue()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(orders.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(orders.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    clients, tasks = {}, set()

    def finish(task):
        tasks.discard(task)
        if error := not task.cancelled() and task.exception():
            traceback.print_exception(error)
            os._exit(1)

    write({"ready": True})
    while (order := await orders.get()) is not None:
        if order["do"] == "open":
            clients[order["client"]] = Client(order)
        client = clients[order["client"]]
        act = client.call if "call" in order else getattr(client, order["do"])
        task = asyncio.ensure_future(act(order))
        tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(finish)


asyncio.run(main())
