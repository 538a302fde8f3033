// Turns at posting: which write posts to the gateway, and for which other writes. A pure state machine; delivery.js
// keeps the state and carries out the answers.
//
// A PocketBase process has at most one post in flight. Meanwhile the first write that commits waits for the next turn;
// later writes return at once, since the next post carries their rows too. So each post carries all waiting rows, a row
// is posted twice only after a failure, and a write waits for two posts at most: the post in flight and its own.
//
//   posted   highest row number that the gateway has; -1: unknown
//   wanted   highest row number that a write has left to the next post; Infinity: unknown
//   turn     number of the current post; a late outcome of an earlier turn, which was taken for lost, does not end it
//   busy     whether a post is in flight
//   next     whether a write waits for the next turn
//   slow     whether a write gave up waiting for the post in flight; then no other write waits for this post
//   started  start of the last turn (Unix ms)
//   pause    how long the circuit breaker stays open, in milliseconds; 0: closed
//   until    when the open breaker allows the next attempt (Unix ms)
const INITIAL = {
  posted: -1,
  wanted: 0,
  turn: 0,
  busy: false,
  next: false,
  slow: false,
  started: 0,
  pause: 0,
  until: 0,
};

/** Key in the app's store: the state, for all JavaScript engines. */
const STATE = "gateway.delivery";

/** Minimum milliseconds between the starts of two posts under load, so that more rows share a post. */
const GATHER = 10;
/** Maximum milliseconds that a write waits for the next turn. */
const PATIENCE = 50;
/** Milliseconds after the timeout of a post until the turn counts as lost, as after an exception in the engine. */
const LOST = 5000;

/**
 * Whether a newly committed row needs no work: the gateway has the row, or the next post will carry it, or the breaker
 * is open.
 */
function isCovered(state, seq, now) {
  return seq <= state.posted || (state.next && now - state.started <= LOST) || isOpen(state, now);
}

// The functions `committed`, `waited`, `done` and `failed` return [state, answer], with one of these answers:
const LEAVE = "leave"; // return: nothing to do
const WAIT = "wait"; // sleep, then call `waited`
const POST = "post"; // post the rows after state.posted, then call `done` or `failed`

/** To be called when row `seq` was committed. */
function committed(state, seq, now, timeout) {
  if (seq <= state.posted) return [state, LEAVE];
  const noted = { ...state, wanted: Math.max(state.wanted, seq) };
  if (isOpen(noted, now)) return [noted, LEAVE];
  if ((noted.busy || noted.next) && now - noted.started > timeout + LOST) return begun(noted, seq, now);
  if (noted.next) return [noted, LEAVE];
  if (!noted.busy) return begun(noted, seq, now);
  return noted.slow ? [noted, LEAVE] : [{ ...noted, next: true }, WAIT];
}

/** To be called after each sleep of the write that waits for the next turn; `slept`: milliseconds in all. */
function waited(state, slept, now) {
  // Another write took the turn, or the breaker is open.
  if (!state.next || isOpen(state, now)) return [{ ...state, next: false }, LEAVE];
  if (state.busy && slept >= PATIENCE) return [{ ...state, next: false, slow: true, wanted: Infinity }, LEAVE];
  // If the clock was set back, the write does not wait.
  const soon = now >= state.started && now < state.started + GATHER;
  return state.busy || (soon && slept < PATIENCE) ? [state, WAIT] : begun(state, state.posted + 1, now);
}

/** Begins a turn; `seq` is the first row to post if `posted` is unknown. */
function begun(state, seq, now) {
  // The first write after PocketBase's start does not post older rows, which may be many.
  const posted = state.posted < 0 ? seq - 1 : state.posted;
  return [{ ...state, posted, turn: state.turn + 1, busy: true, next: false, slow: false, started: now }, POST];
}

/**
 * To be called when the post of a turn has succeeded. `posted`: the last posted row, null if no row was waiting;
 * `newest`: the highest row number seen. If more rows wait and no write is next, the same write posts again, until one
 * timeout after `since`, the start of its first post.
 */
function done(state, turn, { posted, newest }, since, now, timeout) {
  const after = posted === null ? state : has(reached(state), posted);
  if (state.turn !== turn) return [after, LEAVE];
  const isMore = posted !== null && Math.max(after.wanted, newest) > after.posted;
  if (isMore && !state.next && now - since < timeout) return begun(after, after.posted + 1, now);
  return [{ ...after, wanted: 0, busy: false, slow: false }, LEAVE];
}

/** To be called when the post of a turn has failed: the breaker opens, each time for twice as long. */
function failed(state, turn, now, firstPause, lastPause) {
  const pause = Math.min(state.pause * 2 || firstPause, lastPause);
  const paused = { ...state, pause, until: now + pause };
  return [state.turn === turn ? { ...paused, busy: false, slow: false } : paused, LEAVE];
}

/** Notes that the gateway has all rows up to this number. */
function has(state, posted) {
  return { ...state, posted: Math.max(state.posted, posted) };
}

/** Closes the breaker, after a request has reached the gateway. */
function reached(state) {
  return { ...state, pause: 0 };
}

function isOpen({ pause, until }, now) {
  return pause > 0 && now < until;
}

module.exports = {
  ...{ STATE, INITIAL, GATHER, PATIENCE, LOST, LEAVE, WAIT, POST },
  ...{ isCovered, committed, waited, done, failed, has, reached },
};
