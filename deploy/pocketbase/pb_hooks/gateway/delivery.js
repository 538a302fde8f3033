// Posts committed changes to the gateway. This is the fast path only: what it misses for whatever
// reason stays in the outbox and is fetched by the gateway. So nothing here ever fails a write.
//
// One write at a time posts, for all that wait. Writes that commit meanwhile leave a note and go on,
// so a gateway that hangs holds up one write for one timeout, however many there are.

const config = require(`${__hooks}/gateway/config.js`).get();
const outbox = require(`${__hooks}/gateway/outbox.js`);
const { signed } = require(`${__hooks}/gateway/signature.js`);

const TARGET = "/hooks/pocketbase";
const URL = ($os.getenv("GATEWAY_URL") || "http://127.0.0.1:8000").replace(/\/+$/, "") + TARGET;
const { timeoutSeconds, firstPauseSeconds, lastPauseSeconds, batch } = config.delivery;

// What all JavaScript engines share is in the app's store, as one object that is replaced and never
// changed: two engines that touched the same one would bring the process down.
//
//   posted   everything up to this number has reached the gateway; -1: not known yet
//   wanted   the highest number that somebody left for the one who is posting
//   busy     somebody is posting
//   pause    milliseconds that the breaker is open; 0 while it is closed
//   until    when the open breaker lets one attempt through (unix ms)
const STATE = "gateway.delivery";
const INITIAL = { posted: -1, wanted: 0, busy: false, pause: 0, until: 0 };

function change(app, edit) {
  app.store().setFunc(STATE, (old) => {
    const state = old || INITIAL;
    return { ...state, ...edit(state) };
  });
}

/** After a commit: posts the event's row, with all others that wait. */
function committed(e) {
  e.next();
  const row = outbox.rowOf(e);
  if (!row) return;
  try {
    const posted = claim(e.app, row.seq);
    if (posted === null) return;
    const again = settle(e.app, post(e.app, posted, row), true);
    // What others left meanwhile is posted once more, with the claim given back already: nobody is kept
    // posting for others for ever, and whoever commits from now on posts for himself.
    if (again !== null) settle(e.app, post(e.app, again, null), false);
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

/** How far the gateway is, if the caller shall post; null if it need not or must not. */
function claim(app, seq) {
  let from = null;
  change(app, ({ posted, wanted, busy, pause, until }) => {
    if (seq <= posted) return {};
    if (busy) return { wanted: Math.max(wanted, seq) };
    if (pause > 0 && Date.now() < until) return {};
    // The first write after a start does not post what may have piled up before.
    from = posted < 0 ? seq - 1 : posted;
    return { posted: from, busy: true };
  });
  return from;
}

/** Posts what comes after `posted`: {posted: how far that went} or {error}. */
function post(app, posted, row) {
  try {
    // Most often the caller's own row is all there is, and needs no query.
    const alone = row && row.seq === posted + 1 && outbox.isNewest(app, row.seq);
    const rows = alone ? { last: row.seq, events: row.event } : outbox.after(app, posted, batch);
    if (rows.last === 0) return { posted };

    const body = `{"boot":"${outbox.boot(app)}","events":[${rows.events}],"last":${rows.last}}`;
    const headers = signed("POST", TARGET, body);
    // Posting twice does no harm. Saying so lets the HTTP client try again by itself
    // when the gateway closed the idle connection at this very moment.
    headers["Idempotency-Key"] = String(rows.last);
    const response = $http.send({ method: "POST", url: URL, headers, body, timeout: timeoutSeconds });
    // 409: such a second try, of a request that had arrived.
    if (response.statusCode !== 202 && response.statusCode !== 409) {
      return { error: `the gateway answered ${response.statusCode}` };
    }
    return { posted: rows.last };
  } catch (err) {
    return { error: String(err) };
  }
}

/** Takes in what became of a post. Returns how far the gateway is if somebody left a note beyond that, else null. */
function settle(app, { posted, error }, claimed) {
  let pause = 0; // before
  let now;
  change(app, (state) => {
    pause = state.pause;
    now = error
      ? { pause: Math.min(pause * 2 || firstPauseSeconds * 1000, lastPauseSeconds * 1000) }
      : { posted: Math.max(state.posted, posted), pause: 0, wanted: state.wanted };
    if (error) now.until = Date.now() + now.pause;
    if (claimed) now.busy = false;
    return now;
  });
  if (error) app.logger().warn("gateway: delivery paused", "seconds", now.pause / 1000, "reason", error);
  else if (pause > 0) app.logger().warn("gateway: delivery works again");
  return !error && now.wanted > now.posted ? now.posted : null;
}

/** The gateway called, and has everything up to `seq`: it is there, so the next write is posted. */
function gatewayHas(app, seq) {
  // A gateway that is ahead of this database (restored from a backup) must not silence the delivery.
  settle(app, { posted: Math.min(seq, outbox.last(app)) }, false);
}

module.exports = { committed, collectionCommitted, gatewayHas };
