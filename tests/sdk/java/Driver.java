// The driver of centrifuge-java: clients that read their orders from stdin and write their events to stdout, as
// described in ../driver.mjs. The SDK speaks Protobuf only.

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.github.centrifugal.centrifuge.*;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Driver {
    private static final Gson GSON = new Gson();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] args) throws Exception {
        // The SDK's threads would go on otherwise, here and at the end.
        Thread.currentThread().setUncaughtExceptionHandler((thread, error) -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
        });
        Map<String, Driver> clients = new HashMap<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        OUT.println("{\"ready\":true}");
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Order order = GSON.fromJson(line, Order.class);
            if (order.act.equals("open")) {
                clients.put(order.client, new Driver(order));
            } else {
                clients.get(order.client).act(order);
            }
        }
        System.exit(0);
    }

    /** One line from the tests. */
    private static class Order {
        @com.google.gson.annotations.SerializedName("do")
        String act;
        String client, url, token, channel, method;
        int call, minDelay, maxDelay, timeout, pingDelay, limit; // delays and timeout in milliseconds
        boolean getToken, joinLeave, reverse;
        JsonElement data;
        Position since;
    }

    private static class Position {
        long offset;
        String epoch;
    }

    private final String key;
    private final Client sdk;
    private volatile TokenCallback asked; // the SDK's pending request for a token

    private Driver(Order order) {
        key = order.client;
        Options options = new Options();
        options.setToken(order.token);
        options.setTimeout(order.timeout);
        options.setMinReconnectDelay(order.minDelay);
        options.setMaxReconnectDelay(order.maxDelay);
        if (order.pingDelay > 0) {
            options.setMaxServerPingDelay(order.pingDelay);
        }
        if (order.getToken) {
            options.setTokenGetter(new ConnectionTokenGetter() {
                @Override
                public void getConnectionToken(ConnectionTokenEvent event, TokenCallback callback) {
                    asked = callback;
                    emit("token", Map.of());
                }
            });
        }
        sdk = new Client(order.url, options, new EventListener() {
            @Override
            public void onConnecting(Client client, ConnectingEvent e) {
                emit("connecting", Map.of("code", e.getCode(), "reason", e.getReason()));
            }

            @Override
            public void onConnected(Client client, ConnectedEvent e) {
                emit("connected", Map.of("id", e.getClient()));
            }

            @Override
            public void onDisconnected(Client client, DisconnectedEvent e) {
                emit("disconnected", Map.of("code", e.getCode(), "reason", e.getReason()));
            }

            @Override
            public void onError(Client client, ErrorEvent e) {
                emit("error", failure(e.getError()));
            }
        });
        sdk.connect();
    }

    private void act(Order order) throws Exception {
        Subscription subscription = order.channel == null ? null : sdk.getSubscription(order.channel);
        switch (order.act) {
            case "token" -> asked.Done(null, order.token);
            case "subscribe" -> subscribe(order);
            case "unsubscribe" -> subscription.unsubscribe();
            case "close" -> sdk.close(0);
            case "publish" -> subscription.publish(bytes(order.data),
                    (error, result) -> answer(order, error, () -> Map.of()));
            case "history" -> subscription.history(history(order), (error, result) -> answer(order, error, () -> {
                List<?> publications = result.getPublications().stream()
                        .map(it -> publication(it.getData(), it.getOffset(), it.getInfo())).toList();
                return Map.of("publications", publications, "offset", result.getOffset(), "epoch", result.getEpoch());
            }));
            case "presence" -> subscription.presence((error, result) -> answer(order, error, () -> {
                Map<String, Object> users = new HashMap<>();
                result.getClients().forEach((id, info) -> users.put(id, info.getUser()));
                return Map.of("users", users);
            }));
            case "presenceStats" -> subscription.presenceStats((error, result) -> answer(order, error,
                    () -> Map.of("clients", result.getNumClients(), "users", result.getNumUsers())));
            case "rpc" -> sdk.rpc(order.method, bytes(order.data), (error, result) -> answer(order,
                    error != null ? error : result.getError(), () -> Map.of("data", json(result.getData()))));
            default -> throw new IllegalArgumentException("no such order: " + order.act);
        }
    }

    private void subscribe(Order order) throws DuplicateSubscriptionException {
        SubscriptionOptions options = new SubscriptionOptions();
        options.setJoinLeave(order.joinLeave);
        options.setMinResubscribeDelay(order.minDelay);
        options.setMaxResubscribeDelay(order.maxDelay);
        sdk.newSubscription(order.channel, options, new SubscriptionEventListener() {
            private void emitHere(String event, Map<String, ?> more) {
                Map<String, Object> line = new HashMap<>(more);
                line.put("channel", order.channel);
                emit(event, line);
            }

            @Override
            public void onSubscribed(Subscription s, SubscribedEvent e) {
                emitHere("subscribed", Map.of("wasRecovering", e.wasRecovering(), "recovered", e.getRecovered(),
                        "data", json(e.getData())));
            }

            @Override
            public void onUnsubscribed(Subscription s, UnsubscribedEvent e) {
                emitHere("unsubscribed", Map.of("code", e.getCode(), "reason", e.getReason()));
            }

            @Override
            public void onPublication(Subscription s, PublicationEvent e) {
                emitHere("publication", publication(e.getData(), e.getOffset(), e.getInfo()));
            }

            @Override
            public void onJoin(Subscription s, JoinEvent e) {
                emitHere("join", Map.of("user", e.getInfo().getUser()));
            }

            @Override
            public void onLeave(Subscription s, LeaveEvent e) {
                emitHere("leave", Map.of("user", e.getInfo().getUser()));
            }

            @Override
            public void onError(Subscription s, SubscriptionErrorEvent e) {
                emitHere("error", failure(e.getError()));
            }
        }).subscribe();
    }

    private static HistoryOptions history(Order order) {
        HistoryOptions.Builder options = new HistoryOptions.Builder().withLimit(order.limit)
                .withReverse(order.reverse);
        if (order.since != null) {
            options.withSince(new StreamPosition(order.since.offset, order.since.epoch));
        }
        return options.build();
    }

    private static Map<String, Object> publication(byte[] data, long offset, ClientInfo info) {
        Map<String, Object> it = new LinkedHashMap<>(Map.of("data", json(data), "offset", offset));
        // Without a sender the SDK makes an info of empty strings.
        if (info != null && !info.getClient().isEmpty()) {
            it.put("user", info.getUser());
        }
        return it;
    }

    private static byte[] bytes(JsonElement value) {
        return value.toString().getBytes(StandardCharsets.UTF_8);
    }

    private static JsonElement json(byte[] bytes) {
        return bytes == null || bytes.length == 0 ? com.google.gson.JsonNull.INSTANCE
                : JsonParser.parseString(new String(bytes, StandardCharsets.UTF_8));
    }

    private static Map<String, Object> failure(Throwable error) {
        for (Throwable it = error; it != null; it = it.getCause()) {
            if (it instanceof SubscriptionSubscribeError inner) {
                it = inner.getError();
            }
            if (it instanceof ReplyError answer) {
                return Map.of("code", answer.getCode(), "message", String.valueOf(answer.getMessage()));
            }
        }
        return Map.of("code", 0, "message", String.valueOf(error));
    }

    private interface Result {
        Map<String, ?> get();
    }

    private void answer(Order order, Throwable error, Result result) {
        JsonObject line = new JsonObject();
        line.addProperty("call", order.call);
        line.add(error == null ? "result" : "error", GSON.toJsonTree(error == null ? result.get() : failure(error)));
        write(line);
    }

    private void emit(String event, Map<String, ?> more) {
        JsonObject line = GSON.toJsonTree(more).getAsJsonObject();
        line.addProperty("event", event);
        write(line);
    }

    private void write(JsonObject line) {
        line.addProperty("client", key);
        OUT.println(line);
    }
}
