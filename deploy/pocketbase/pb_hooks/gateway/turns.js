// Turns at posting: which write posts to the gateway, and for which other writes. A pure state machine; delivery.js
// keeps its state and carries out what it says.
//
// At most one post is under way in a PocketBase process. While it is, the first write that commits becomes the next
// in turn and waits; all later ones leave at once, since the next post carries their rows too. So each post carries
// all rows that wait, no row is posted twice except after a failure, and a write waits for two posts at most: the one
// that is under way and its own.
//
//   posted   the highest number that the gateway has; -1: not known yet
//   wanted   the highest number of a row whose write left it to others; Infinity: not known
//   turn     counts the posts; a post that ends late, after its turn was taken for lost, changes nothing
//   busy     whether a post is under way
//   next     whether a write waits for the next turn
//   slow     whether a waiting write gave up during the post that is under way; then no other one waits
//   started  when the last turn began (unix ms)
//   pause    for how long the circuit breaker is open, in milliseconds; 0: it is closed
//   until    when the open breaker lets the next attempt through (unix ms)
const INITIAL = { posted: -1, wanted: 0, turn: 0, busy: false, next: false, slow: false, started: 0, pause: 0, until: 0 };

/** Under this key the app's store has the state for all JavaScript engines. */
const STATE = "gateway.delivery";

/** Milliseconds from the begin of one post to the next one's, while writes keep coming: more rows share a post. */
const GATHER = 10;
/** Milliseconds that a write waits for its turn at most. */
const PATIENCE = 50;
/** Milliseconds beyond the timeout of a post after which a turn is lost: an exception ended its engine. */
const LOST = 5000;

/**
 * Whether nothing needs to be done for a row that is committed now: it has arrived, or the next post, which has not
 * begun yet, will carry it, or nobody may post.
 */
function isCovered(state, seq, now) {
  return seq <= state.posted || (state.next && now - state.started <= LOST) || isOpen(state, now);
}

// Each of these returns [state, answer]; the answer is one of:
const LEAVE = "leave"; // nothing to do
const WAIT = "wait"; // sleep, then call `waited`
const POST = "post"; // post what comes after state.posted, then call `done`

/** A row was committed. */
function committed(state, seq, now, timeout) {
  if (seq <= state.posted) return [state, LEAVE];
  const noted = { ...state, wanted: Math.max(state.wanted, seq) };
  if (isOpen(noted, now)) return [noted, LEAVE];
  if ((noted.busy || noted.next) && now - noted.started > timeout + LOST) return begun(noted, seq, now);
  if (noted.next) return [noted, LEAVE];
  if (!noted.busy) return begun(noted, seq, now);
  return noted.slow ? [noted, LEAVE] : [{ ...noted, next: true }, WAIT];
}

/** The next in turn has slept; `slept`: for how many milliseconds in all. */
function waited(state, slept, now) {
  // The turn went to somebody else, or nobody can have one.
  if (!state.next || isOpen(state, now)) return [{ ...state, next: false }, LEAVE];
  if (state.busy && slept >= PATIENCE) return [{ ...state, next: false, slow: true, wanted: Infinity }, LEAVE];
  // A clock that was set back must not keep it waiting.
  const soon = now >= state.started && now < state.started + GATHER;
  return state.busy || (soon && slept < PATIENCE) ? [state, WAIT] : begun(state, state.posted + 1, now);
}

/** A new turn; `seq` is the row of the write that begins it. */
function begun(state, seq, now) {
  // The first write after a start does not post what may have piled up before.
  const posted = state.posted < 0 ? seq - 1 : state.posted;
  return [{ ...state, posted, turn: state.turn + 1, busy: true, next: false, slow: false, started: now }, POST];
}

/**
 * The post of this turn has ended: `posted` is how far the gateway is now, null if there was no row to post; `newest` is
 * the newest row that was seen. Goes on with rows that were left behind if nobody is next, until `since` (when the write
 * began its first post) is a timeout ago.
 */
function done(state, turn, { posted, newest }, since, now, timeout) {
  const after = posted === null ? state : has(reached(state), posted);
  if (state.turn !== turn) return [after, LEAVE];
  const isMore = posted !== null && Math.max(after.wanted, newest) > after.posted;
  if (isMore && !state.next && now - since < timeout) return begun(after, after.posted + 1, now);
  return [{ ...after, wanted: 0, busy: false, slow: false }, LEAVE];
}

/** The post of this turn has failed: the breaker opens, for twice as long each time. */
function failed(state, turn, now, firstPause, lastPause) {
  const pause = Math.min(state.pause * 2 || firstPause, lastPause);
  const paused = { ...state, pause, until: now + pause };
  return [state.turn === turn ? { ...paused, busy: false, slow: false } : paused, LEAVE];
}

/** The gateway has everything up to this number. */
function has(state, posted) {
  return { ...state, posted: Math.max(state.posted, posted) };
}

/** A request has reached the gateway: the breaker closes. */
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
