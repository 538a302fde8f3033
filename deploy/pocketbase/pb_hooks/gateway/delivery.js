// Posts committed changes to the gateway. Posting is only the fast path: a change without a post stays in the outbox,
// where the gateway reads it. A failure here never fails a write.
//
// turns.js decides which write posts, and for which writes.

const config = require(`${__hooks}/gateway/config.js`);
const address = require(`${__hooks}/gateway/address.js`);
const rows = require(`${__hooks}/gateway/rows.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

const TARGET = "/hooks/pocketbase";

// The state of turns.js is an object in the app's store. The object is replaced and never changed: concurrent access by
// two engines would crash the process.

/** Key in the app's store: the reason of the last request's failure; "" after a success. */
const FAILURE = "gateway.delivery.failure";
/** Maximum characters of a reason. */
const MAX_REASON = 300;

/** The section `delivery` of the config in force. Not for use inside change(), which holds the store's lock. */
function settings() {
  return config.get().delivery;
}

/** Replaces the state with the result of `step(state)`, which is [state, answer]; returns {before, after, answer}. */
function change(app, step) {
  let taken;
  app.store().setFunc(turns.STATE, (shared) => {
    const before = shared ? { ...shared } : turns.INITIAL;
    const [after, answer] = step(before);
    taken = { before, after, answer };
    return after;
  });
  return taken;
}

/**
 * Posts the committed row `seq` and all waiting rows, unless another write does. `own`: the row as {seq, event}, if
 * probably no other row waits.
 */
function deliver(app, seq, own) {
  try {
    const now = Date.now();
    const timeout = settings().timeoutSeconds * 1000;
    let turn = change(app, (state) => turns.committed(state, seq, now, timeout));
    for (let slept = 0; turn.answer === turns.WAIT; ) {
      const pause = Math.max(2, Math.min(turns.GATHER, turn.after.started + turns.GATHER - Date.now()));
      sleep(pause);
      slept += pause;
      own = null;
      turn = change(app, (state) => turns.waited(state, slept, Date.now()));
    }
    const since = Date.now();
    while (turn.answer === turns.POST) {
      const outcome = post(app, turn.after.posted, own);
      turn = ended(app, turn.after.turn, outcome, since);
      own = null;
    }
  } catch (err) {
    // The record is saved; with an exception, the caller would see a failed write.
    app.logger().error("gateway: delivery failed unexpectedly; the change stays in the outbox", "error", String(err));
  }
}

/**
 * Posts the rows after `posted`, or only `own` if `own` is the next row. Returns {posted: number of the last posted
 * row, null if no row waits; newest: the highest row number seen} or {error}.
 */
function post(app, posted, own) {
  try {
    const isNext = own !== null && own.seq === posted + 1;
    const waiting = isNext
      ? { last: own.seq, newest: own.seq, events: own.event }
      : rows.after(app, posted, settings().batch);
    const { newest } = waiting;
    if (waiting.last === 0) return { posted: null, newest };

    const error = send(app, waiting.last, waiting.events);
    return error ? { error } : { posted: waiting.last, newest };
  } catch (err) {
    return { error: String(err) };
  }
}

/**
 * Posts events (JSON, up to the number `last`) to the gateway of the previous post, and after a failure at once to the
 * next gateways in turn. Returns "" if a gateway took the events, else the reason of the failure.
 */
function send(app, last, events) {
  const body = `{"boot":"${rows.boot(app)}","events":[${events}],"last":${last}}`;
  const addresses = address.inTurn(app);
  const failures = [];
  for (let i = 0; i < addresses.length; i++) {
    const error = sendTo(addresses[i], last, body);
    if (!error) {
      if (i > 0) {
        const [from, to] = [addresses[0], addresses[i]].map(address.masked);
        app
          .logger()
          .warn("gateway: delivery continues with another gateway", "from", from, "to", to, "reason", failures[0]);
        address.remember(app, addresses[i]);
      }
      return "";
    }
    failures.push(error);
  }
  return joined(addresses, failures);
}

/** The failures in one line, with the addresses if there are several. */
function joined(addresses, failures) {
  if (addresses.length === 1) return failures[0];
  return addresses
    .map((base, i) => `${address.masked(base)}: ${failures[i]}`)
    .join("; ")
    .slice(0, MAX_REASON);
}

/** Posts a body to one gateway. Returns "" if the gateway took the body, else the reason. */
function sendTo(base, last, body) {
  const headers = signed("POST", TARGET, body);
  // A repeated post does no harm. With the header, the HTTP client repeats a request if the gateway closed the idle
  // connection at the same moment.
  headers["Idempotency-Key"] = String(last);
  let response;
  try {
    response = $http.send({ method: "POST", url: base + TARGET, headers, body, timeout: settings().timeoutSeconds });
  } catch (err) {
    return reasonOf(err);
  }
  // 409: a repeated request, which had arrived the first time.
  if (response.statusCode === 202 || response.statusCode === 409) return "";
  return address.refusal(response).slice(0, MAX_REASON);
}

/** An exception of $http.send in one line, without JavaScript's additions and without passwords in URLs. */
function reasonOf(err) {
  const text = String((err && err.message) || err)
    .replace(/^GoError: /, "")
    .replace(/ at github\.com\/[\s\S]*$/, "");
  return address.masked(text).slice(0, MAX_REASON);
}

/** Applies the outcome of a turn's post to the state. */
function ended(app, turn, outcome, since) {
  const { error } = outcome;
  const now = Date.now();
  if (error) {
    const { firstPauseSeconds, lastPauseSeconds } = settings();
    const pauses = [firstPauseSeconds * 1000, lastPauseSeconds * 1000];
    const taken = change(app, (state) => turns.failed(state, turn, now, ...pauses));
    replaceFailure(app, error);
    app
      .logger()
      .warn(
        "gateway: delivery paused, since no gateway took the post; the changes stay in the outbox",
        "seconds",
        taken.after.pause / 1000,
        "url",
        address.shown,
        "reason",
        error,
      );
    return taken;
  }
  const timeout = settings().timeoutSeconds * 1000;
  const taken = change(app, (state) => turns.done(state, turn, outcome, since, now, timeout));
  if (outcome.posted !== null) succeeded(app);
  return taken;
}

/** Notes a request that has reached the gateway: the only evidence that the connection works. */
function succeeded(app) {
  if (failure(app) && replaceFailure(app, "")) app.logger().warn("gateway: delivery works again", "url", address.shown);
}

function failure(app) {
  return app.store().get(FAILURE) || "";
}

function replaceFailure(app, now) {
  let before;
  app.store().setFunc(FAILURE, (old) => {
    before = old || "";
    return now;
  });
  return before;
}

/**
 * Notes that the gateway has all rows up to `seq`. The circuit breaker stays as it is: a call from the gateway does not
 * show that PocketBase can reach the gateway.
 */
function gatewayHas(app, seq) {
  // After a restore of the database from a backup, the gateway may be ahead, and the delivery must go on.
  const posted = Math.min(seq, rows.last(app));
  change(app, (state) => [turns.has(state, posted), turns.LEAVE]);
}

/** {url, error}: the addresses of GATEWAY_URL, and the reason of the last request's failure ("" after a success). */
function report(app) {
  return { url: address.shown, error: failure(app) };
}

/**
 * Posts an empty list of events to each gateway, to test the connections. If a gateway takes the post, the circuit
 * breaker closes: the next write is posted at once. Returns {url, error}: the failed addresses and the reasons; all
 * addresses if all or none failed.
 */
function probe(app) {
  const body = `{"boot":"${rows.boot(app)}","events":[],"last":0}`;
  const failing = address.bases.map((base) => [base, sendTo(base, 0, body)]).filter(([, reason]) => reason);
  const works = failing.length < address.bases.length;
  const error =
    failing.length === 0
      ? ""
      : joined(
          failing.map(([base]) => base),
          failing.map(([, reason]) => reason),
        );
  if (error && !works) {
    if (!replaceFailure(app, error))
      app
        .logger()
        .warn(
          "gateway: no gateway can be reached; meanwhile the gateways read the changes from the outbox",
          "url",
          address.shown,
          "reason",
          error,
        );
  } else {
    change(app, (state) => [turns.reached(state), turns.LEAVE]);
    succeeded(app);
  }
  return { url: works && error ? address.masked(failing.map(([base]) => base).join(", ")) : address.shown, error };
}

module.exports = { deliver, gatewayHas, report, probe };
