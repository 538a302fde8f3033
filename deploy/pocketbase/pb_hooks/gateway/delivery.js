// Posts committed changes to the gateway. This is the fast path only: what it misses for whatever
// reason stays in the outbox and is fetched by the gateway. So nothing here ever fails a write.
//
// turns.js decides which write posts, and for which others.

const config = require(`${__hooks}/gateway/config.js`).get();
const address = require(`${__hooks}/gateway/address.js`);
const outbox = require(`${__hooks}/gateway/outbox.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);
const turns = require(`${__hooks}/gateway/turns.js`);

const TARGET = "/hooks/pocketbase";
const { timeoutSeconds, firstPauseSeconds, lastPauseSeconds, batch } = config.delivery;
const TIMEOUT = timeoutSeconds * 1000;

/**
 * Under this key the app's store has the state of turns.js for all JavaScript engines, as one object that is replaced
 * and never changed: two engines that touched the same one would bring the process down.
 */
const STATE = "gateway.delivery";

/** Under this key the app's store has the reason why the last request to the gateway failed; "" if it succeeded. */
const FAILURE = "gateway.delivery.failure";
/** Characters of such a reason. */
const MAX_REASON = 300;

/** Replaces the state by what `step(state)` returns, [state, answer]; returns {before, after, answer}. */
function change(app, step) {
  let taken;
  app.store().setFunc(STATE, (shared) => {
    const before = shared ? { ...shared } : turns.INITIAL;
    const [after, answer] = step(before);
    taken = { before, after, answer };
    return after;
  });
  return taken;
}

/** After a commit: posts the event's row with all others that wait, unless another write does. */
function committed(e) {
  e.next();
  const row = outbox.rowOf(e);
  if (!row) return;
  try {
    const now = Date.now();
    const state = e.app.store().get(STATE); // looked at first, which is cheaper than a change
    if (state && turns.isCovered(state, now, TIMEOUT)) return;
    let turn = change(e.app, (state) => turns.committed(state, row.seq, now, TIMEOUT));
    for (let slept = 0; turn.answer === turns.WAIT; ) {
      const pause = Math.max(2, Math.min(turns.GATHER, turn.after.started + turns.GATHER - Date.now()));
      sleep(pause);
      slept += pause;
      const newest = outbox.newest(); // not within a change, which holds the store's lock
      turn = change(e.app, (state) => turns.waited(state, slept, Date.now(), newest));
    }
    const since = Date.now();
    while (turn.answer === turns.POST) turn = ended(e.app, turn.after.turn, post(e.app, turn.after.posted, row), since);
  } catch (err) {
    // The record is saved; an exception from here would tell the caller that it is not.
    e.app.logger().error("gateway: delivery failed", "error", String(err));
  }
}

/** After the commit of a change of a collection. */
function collectionCommitted(e) {
  committed(e);
  outbox.collectionCommitted(e);
}

/** Posts what comes after `posted`: {posted: how far that went, null if there is nothing} or {error}. */
function post(app, posted, row) {
  try {
    // Most often the caller's own row is all there is, and needs no query.
    const alone = row && row.seq === posted + 1 && outbox.isNewest(row.seq);
    const rows = alone ? { last: row.seq, events: row.event } : outbox.after(app, posted, batch);
    if (rows.last === 0) return { posted: null };

    const error = send(app, rows.last, rows.events);
    return error ? { error } : { posted: rows.last };
  } catch (err) {
    return { error: String(err) };
  }
}

/** Posts events (JSON, up to the number `last`). Returns the reason if the gateway did not take them, else "". */
function send(app, last, events) {
  const body = `{"boot":"${outbox.boot(app)}","events":[${events}],"last":${last}}`;
  const headers = signed("POST", TARGET, body);
  // Posting twice does no harm. Saying so lets the HTTP client try again by itself
  // when the gateway closed the idle connection at this very moment.
  headers["Idempotency-Key"] = String(last);
  let response;
  try {
    response = $http.send({ method: "POST", url: address.base + TARGET, headers, body, timeout: timeoutSeconds });
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

/** Takes in what became of the post of a turn, {posted} (null: there was nothing to post) or {error}. */
function ended(app, turn, { posted, error }, since) {
  const now = Date.now();
  if (error) {
    const pauses = [firstPauseSeconds * 1000, lastPauseSeconds * 1000];
    const taken = change(app, (state) => turns.failed(state, turn, now, ...pauses));
    replaceFailure(app, error);
    app.logger().warn("gateway: delivery paused", "seconds", taken.after.pause / 1000, "url", address.shown, "reason", error);
    return taken;
  }
  const taken = change(app, (state) => turns.done(state, turn, posted, since, now, TIMEOUT));
  if (posted !== null) succeeded(app);
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
  const posted = Math.min(seq, outbox.last(app));
  change(app, (state) => [turns.has(state, posted), turns.LEAVE]);
}

/** For the gateway: {url, error}, how PocketBase calls it, and why the last call failed; "" if it did not. */
function report(app) {
  return { url: address.shown, error: failure(app) };
}

/** Posts no events, to see whether the gateway can be reached. If so, the next write is posted at once. */
function probe(app) {
  const error = send(app, 0, "");
  if (error) {
    if (!replaceFailure(app, error)) app.logger().warn("gateway: out of reach", "url", address.shown, "reason", error);
  } else {
    change(app, (state) => [turns.reached(state), turns.LEAVE]);
    succeeded(app);
  }
  return { url: address.shown, error };
}

module.exports = { committed, collectionCommitted, gatewayHas, report, probe };
