// Posts committed changes to the gateway. This is the fast path only: what it misses for whatever
// reason stays in the outbox and is fetched by the gateway. So nothing here ever fails a write.
//
// turns.js decides which write posts, and for which others.

const config = require(`${__hooks}/gateway/config.js`).get();
const address = require(`${__hooks}/gateway/address.js`);
const rows = require(`${__hooks}/gateway/rows.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

const TARGET = "/hooks/pocketbase";
const { timeoutSeconds, firstPauseSeconds, lastPauseSeconds, batch } = config.delivery;
const TIMEOUT = timeoutSeconds * 1000;

// The state of turns.js is one object in the app's store, which is replaced and never changed: two engines that touched
// the same one would bring the process down.

/** Under this key the app's store has the reason why the last request to the gateway failed; "" if it succeeded. */
const FAILURE = "gateway.delivery.failure";
/** Characters of such a reason. */
const MAX_REASON = 300;

/** Replaces the state by what `step(state)` returns, [state, answer]; returns {before, after, answer}. */
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
 * Posts the committed row with this number and all others that wait, unless another write does. `own`: the row, as
 * {seq, event}, if it is most likely the only one.
 */
function deliver(app, seq, own) {
  try {
    const now = Date.now();
    let turn = change(app, (state) => turns.committed(state, seq, now, TIMEOUT));
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
    // The record is saved; an exception from here would tell the caller that it is not.
    app.logger().error("gateway: delivery failed", "error", String(err));
  }
}

/**
 * Posts what comes after `posted`, which is `own` if that is the next row: {posted: how far that went, null if there is
 * nothing; newest: the newest row that was seen} or {error}.
 */
function post(app, posted, own) {
  try {
    const isNext = own !== null && own.seq === posted + 1;
    const waiting = isNext ? { last: own.seq, newest: own.seq, events: own.event } : rows.after(app, posted, batch);
    const { newest } = waiting;
    if (waiting.last === 0) return { posted: null, newest };

    const error = send(app, waiting.last, waiting.events);
    return error ? { error } : { posted: waiting.last, newest };
  } catch (err) {
    return { error: String(err) };
  }
}

/**
 * Posts events (JSON, up to the number `last`) to the gateway that took the last post, and where that fails, at once to
 * each other one. Returns the reason if none took them, else "".
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
        app.logger().warn("gateway: delivery goes on with the next gateway", "from", from, "to", to, "reason", failures[0]);
        address.remember(app, addresses[i]);
      }
      return "";
    }
    failures.push(error);
  }
  return joined(addresses, failures);
}

/** One line about failures, with the addresses if there are several. */
function joined(addresses, failures) {
  if (addresses.length === 1) return failures[0];
  return addresses.map((base, i) => `${address.masked(base)}: ${failures[i]}`).join("; ").slice(0, MAX_REASON);
}

/** Posts a body to one gateway. Returns the reason if the gateway did not take it, else "". */
function sendTo(base, last, body) {
  const headers = signed("POST", TARGET, body);
  // Posting twice does no harm. Saying so lets the HTTP client try again by itself
  // when the gateway closed the idle connection at this very moment.
  headers["Idempotency-Key"] = String(last);
  let response;
  try {
    response = $http.send({ method: "POST", url: base + TARGET, headers, body, timeout: timeoutSeconds });
  } catch (err) {
    return reason(err);
  }
  // 409: such a second try, of a request that had arrived.
  if (response.statusCode === 202 || response.statusCode === 409) return "";
  const { message } = (response.json && response.json.error) || {};
  return `the gateway answered ${response.statusCode}${message ? `: ${message}` : ""}`.slice(0, MAX_REASON);
}

/** One line about an exception of $http.send, without JavaScript's own words and without the password of a URL. */
function reason(err) {
  const text = String((err && err.message) || err).replace(/^GoError: /, "").replace(/ at github\.com\/[^]*$/, "");
  return address.masked(text).slice(0, MAX_REASON);
}

/** Takes in the outcome of the post of a turn. */
function ended(app, turn, outcome, since) {
  const { error } = outcome;
  const now = Date.now();
  if (error) {
    const pauses = [firstPauseSeconds * 1000, lastPauseSeconds * 1000];
    const taken = change(app, (state) => turns.failed(state, turn, now, ...pauses));
    replaceFailure(app, error);
    app.logger().warn("gateway: delivery paused", "seconds", taken.after.pause / 1000, "url", address.shown, "reason", error);
    return taken;
  }
  const taken = change(app, (state) => turns.done(state, turn, outcome, since, now, TIMEOUT));
  if (outcome.posted !== null) succeeded(app);
  return taken;
}

/** A request has reached the gateway, which alone shows that the next ones will. */
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
 * The gateway has everything up to `seq`. It has called, which does not show that it can be called: the breaker stays as
 * it is.
 */
function gatewayHas(app, seq) {
  // A gateway that is ahead of this database (restored from a backup) must not silence the delivery.
  const posted = Math.min(seq, rows.last(app));
  change(app, (state) => [turns.has(state, posted), turns.LEAVE]);
}

/** For the gateway: {url, error}, how PocketBase calls it, and why the last call failed; "" if it did not. */
function report(app) {
  return { url: address.shown, error: failure(app) };
}

/**
 * Posts no events, to see whether each gateway can be reached. If any can, the next write is posted at once. Answers
 * {url, error}: the reason why addresses were not reached, and these addresses; all of them if all or none were.
 */
function probe(app) {
  const body = `{"boot":"${rows.boot(app)}","events":[],"last":0}`;
  const failing = address.bases.map((base) => [base, sendTo(base, 0, body)]).filter(([, error]) => error);
  const works = failing.length < address.bases.length;
  const error = failing.length === 0 ? "" : joined(failing.map(([base]) => base), failing.map(([, reason]) => reason));
  if (error && !works) {
    if (!replaceFailure(app, error)) app.logger().warn("gateway: out of reach", "url", address.shown, "reason", error);
  } else {
    change(app, (state) => [turns.reached(state), turns.LEAVE]);
    succeeded(app);
  }
  return { url: works && error ? address.masked(failing.map(([base]) => base).join(", ")) : address.shown, error };
}

module.exports = { deliver, gatewayHas, report, probe };
