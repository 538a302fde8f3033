// The choice of the posting write (pb_hooks/gateway/turns.js), as a property: random interleavings of writes on
// simulated JavaScript engines that share only the state. A failure prints its seed.

import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./modules.mjs";

const turns = load("turns");

const TIMEOUT = 1000;

/** Mulberry32: random numbers from 0 to 1, determined by a seed. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * A server with `writes` writes. `trouble` is the share of failing posts, `slowest` the longest post in milliseconds,
 * `batch` the largest number of rows in a post, `pulls` the frequency of the gateway's own reads of the outbox.
 */
class Server {
  constructor(seed, { writes, trouble = 0, slowest = 3, batch = 5, pulls = 0 }) {
    Object.assign(this, { random: random(seed), writes, trouble, slowest, batch, pulls });
    this.state = turns.INITIAL;
    this.now = 1_000_000;
    this.rows = 0; // committed rows: 1 to this number
    this.posts = []; // {first, last, failed} in the order of their beginning
    this.engines = [];
    this.pulled = 0;
    this.waits = []; // milliseconds of each write
    this.waiting = 0;
    this.mostPosts = 0; // posts of one write
  }

  change(step) {
    const [after, answer] = step(this.state);
    this.state = Object.freeze({ ...after });
    return answer;
  }

  /** One write after its commit, step by step. Other writes may run at each yield. */
  *write() {
    const seq = ++this.rows;
    yield 0;
    if (turns.isCovered(this.state, seq, this.now)) return this.waits.push(0);
    yield 0;
    let answer = this.change((state) => turns.committed(state, seq, this.now, TIMEOUT));
    let slept = 0;
    this.waiting += answer === turns.WAIT;
    assert.ok(this.waiting <= 1, "one write waits at a time");
    const waits = answer === turns.WAIT;
    while (answer === turns.WAIT) {
      slept += 1;
      yield 1;
      answer = this.change((state) => turns.waited(state, slept, this.now));
    }
    this.waiting -= waits;
    this.waits.push(slept);
    const since = this.now;
    let own = waits ? null : seq; // at first, the write posts its own row without reading the others
    for (let count = 1; answer === turns.POST; count++) {
      this.mostPosts = Math.max(this.mostPosts, count);
      const { turn, posted } = this.state;
      yield 0;
      const newest = own === posted + 1 ? own : this.rows;
      const last = Math.min(newest, posted + this.batch);
      own = null;
      const outcome = { posted: last > posted ? last : null, newest };
      if (last <= posted) {
        answer = this.change((state) => turns.done(state, turn, outcome, since, this.now, TIMEOUT));
        continue;
      }
      const post = { first: posted + 1, last, failed: this.random() < this.trouble, ended: false };
      assert.ok(
        this.posts.every(({ ended }) => ended),
        "one post at a time",
      );
      this.posts.push(post);
      yield Math.floor(this.random() * (this.slowest + 1));
      post.ended = true;
      answer = this.change((state) =>
        post.failed
          ? turns.failed(state, turn, this.now, 20, 200)
          : turns.done(state, turn, outcome, since, this.now, TIMEOUT),
      );
    }
  }

  /** Runs until every write has ended. */
  run() {
    while (this.writes > 0 || this.engines.length > 0) {
      const ready = this.engines.filter(({ at }) => at <= this.now);
      if (this.random() < this.pulls) this.pull();
      const pick = Math.floor(this.random() * (ready.length + 2));
      if (pick < ready.length) this.advance(ready[pick]);
      else if (pick === ready.length && this.writes > 0) this.begin();
      else this.now += 1;
    }
    return this;
  }

  /** The gateway reads the outbox up to a random row. */
  pull() {
    const posted = Math.max(this.state.posted, 0);
    const seq = posted + Math.floor(this.random() * (this.rows - posted + 1));
    this.pulled = Math.max(this.pulled, seq);
    this.state = Object.freeze(turns.has(this.state, seq));
  }

  begin() {
    this.writes -= 1;
    this.advance({ steps: this.write(), at: this.now });
  }

  advance(engine) {
    const { value, done } = engine.steps.next();
    this.engines = this.engines.filter((other) => other !== engine);
    if (!done) this.engines.push({ steps: engine.steps, at: this.now + value });
  }

  /** The numbers of the received rows, in order of arrival. */
  get arrived() {
    const good = this.posts.filter(({ failed }) => !failed);
    return good.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
  }
}

function seeds(count, check) {
  for (let seed = 1; seed <= count; seed++) {
    try {
      check(seed);
    } catch (error) {
      throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
    }
  }
}

const upTo = (last, first = 1) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

test("every row is posted once and in order, and none stays behind", () => {
  seeds(2000, (seed) => {
    const server = new Server(seed, { writes: 30 }).run();
    // The first post may skip rows before its own, as after a start with a backlog.
    assert.deepEqual(server.arrived, upTo(30, server.posts[0].first));
    assert.ok(server.posts[0].first <= 30);
  });
});

test("reads by the gateway in between leave no row behind", () => {
  seeds(2000, (seed) => {
    const server = new Server(seed, { writes: 30, pulls: 0.02 }).run();
    const missing = upTo(30, server.posts[0]?.first ?? 31).filter(
      (seq) => seq > server.pulled && !server.arrived.includes(seq),
    );
    assert.deepEqual(missing, []);
  });
});

test("a write posts at most once, for every waiting write", () => {
  seeds(500, (seed) => {
    const server = new Server(seed, { writes: 200, batch: 1000 }).run();
    assert.equal(server.mostPosts, 1);
    assert.ok(server.posts.length < 150, `${server.posts.length} posts of 200 rows`);
  });
});

test("after failures rows may repeat, but never out of order, and rows after the last failure arrive", () => {
  seeds(2000, (seed) => {
    const server = new Server(seed, { writes: 30, trouble: 0.3 }).run();
    const { arrived } = server;
    assert.deepEqual(
      arrived,
      arrived.toSorted((a, b) => a - b),
    );
    assert.equal(new Set(arrived).size, arrived.length, "a row that arrived is not posted again");
    assert.equal(server.state.busy || server.state.next, false, "nobody is left in a turn");
  });
});

test("a write waits for a slow gateway's answer no longer than the patience", () => {
  let gaveUp = 0;
  seeds(200, (seed) => {
    const server = new Server(seed, { writes: 30, slowest: 400, batch: 1000 }).run();
    assert.ok(server.waits.every((slept) => slept <= turns.PATIENCE));
    gaveUp += server.waits.filter((slept) => slept === turns.PATIENCE).length;
    assert.equal(server.arrived.at(-1), 30, "rows whose write gave up are posted by the one that was slow");
  });
  assert.ok(gaveUp > 20, `${gaveUp} writes gave up in 200 runs`);
});

test("once a write has waited in vain for a post, no other write waits for this post", () => {
  let [state, answer] = turns.committed(turns.INITIAL, 1, 0, TIMEOUT);
  [state, answer] = turns.committed(state, 2, 1, TIMEOUT);
  assert.equal(answer, turns.WAIT);
  [state, answer] = turns.waited(state, turns.PATIENCE, 1 + turns.PATIENCE);
  assert.equal(answer, turns.LEAVE);
  [state, answer] = turns.committed(state, 3, 2 + turns.PATIENCE, TIMEOUT);
  assert.equal(answer, turns.LEAVE);
  [state, answer] = turns.done(state, state.turn, { posted: 1, newest: 1 }, 0, 3 + turns.PATIENCE, TIMEOUT);
  assert.equal(answer, turns.POST, "the write that posted goes on with their rows");
});

test("the turn of a vanished engine is taken over, and its late end changes nothing", () => {
  let [state, answer] = turns.committed(turns.INITIAL, 1, 0, TIMEOUT);
  assert.equal(answer, turns.POST);
  const lost = state.turn;
  [state, answer] = turns.committed(state, 2, TIMEOUT + turns.LOST, TIMEOUT);
  assert.equal(answer, turns.WAIT);
  [state, answer] = turns.committed(state, 3, TIMEOUT + turns.LOST + 1, TIMEOUT);
  assert.equal(answer, turns.POST);
  assert.equal(state.posted, 0, "with the rows of the lost turn");
  [state] = turns.done(state, lost, { posted: 1, newest: 1 }, 0, TIMEOUT + turns.LOST + 2, TIMEOUT);
  assert.equal(state.busy, true);
  [state] = turns.failed(state, lost, TIMEOUT + turns.LOST + 3, 20, 200);
  assert.equal(state.busy, true);
});

test("the pauses grow from the first to the last, and only a request that arrives ends them", () => {
  let state = turns.INITIAL;
  const pauses = [];
  for (let i = 0; i < 5; i++) {
    [state] = turns.committed(state, i + 1, state.until, TIMEOUT);
    [state] = turns.failed(state, state.turn, state.until, 20, 100);
    pauses.push(state.pause);
    const [, answer] = turns.committed(state, 99, state.until - 1, TIMEOUT);
    assert.equal(answer, turns.LEAVE, "the breaker is open");
  }
  assert.deepEqual(pauses, [20, 40, 80, 100, 100]);
  assert.equal(turns.has(state, 3).pause, 100, "a call of the gateway shows nothing of the other direction");
  assert.equal(turns.reached(state).pause, 0);
  const [busy] = turns.committed(state, 100, state.until, TIMEOUT);
  assert.equal(
    turns.done(busy, busy.turn, { posted: null, newest: 0 }, 0, 1, TIMEOUT)[0].pause,
    100,
    "nothing was sent",
  );
  assert.equal(turns.done(busy, busy.turn, { posted: 100, newest: 100 }, 0, 1, TIMEOUT)[0].pause, 0);
});
