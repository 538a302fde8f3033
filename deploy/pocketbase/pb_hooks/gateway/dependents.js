// Dependents: records whose channels depend on another record. With the template "board:{card.board}", comments depend
// on their card: when the card moves to another board, its comments move from the old board's channel to the new one.

const channels = require(`${__hooks}/gateway/channels.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);
const { Relations } = require(`${__hooks}/gateway/relations.js`);

/** Maximum dependents with a move of their own after a write. Above the limit, clients reload the whole collection. */
const MAX_MOVED = 1000;
const NONE = [];

/** Collection id → steps, and the schema from which they were derived. */
let known = { schema: null, steps: new Map() };

/**
 * The places where the path of a template leads through the records of collection `id`; empty for most collections.
 *
 *   collection  the relayed collection with the template "before{path}after"
 *   prefix      the part of the path up to the records of collection `id`
 *   rest        the part after `prefix`, beginning with a field of collection `id`
 */
function stepsOf(app, id) {
  const now = schema.current(app);
  if (known.schema !== now) known = { schema: now, steps: derive(app, now) };
  return known.steps.get(id) || NONE;
}

function derive(app, { relay }) {
  const steps = new Map();
  for (const collection in relay) {
    for (const template of relay[collection]) {
      let at = collection;
      template.path.slice(0, -1).forEach((name, i) => {
        const relation = at && app.findCachedCollectionByNameOrId(at).fields.getByName(name);
        at = relation && relation.collectionId;
        if (!at) return; // the field was removed a moment ago
        const [prefix, rest] = [template.path.slice(0, i + 1), template.path.slice(i + 1)];
        steps.set(at, [...(steps.get(at) || NONE), { ...template, collection, prefix, rest }]);
      });
    }
  }
  return steps;
}

/** The moves of a record's dependents after an update of the record, as a list of [channels, action, dependent]. */
function moved(tx, steps, record, original, refuse) {
  const touchedSteps = steps.filter(({ rest: [field] }) => touched(record, original, field));
  const collections = [...new Set(touchedSteps.map(({ collection }) => collection))];
  return collections.flatMap((collection) => {
    const its = touchedSteps.filter((step) => step.collection === collection);
    const found = dependentOn(tx, collection, its, record.id);
    const before = new Relations(tx, [original]);
    const now = new Relations(tx);
    if (found.length > MAX_MOVED) return [reload(collection, its, [before, original], [now, record])];
    return found.flatMap((dependent) => {
      const then = channels.of(before, dependent, refuse);
      const names = channels.of(now, dependent, refuse);
      return [
        [channels.without(then, names), "delete", dependent],
        [channels.without(names, then), "create", dependent],
      ];
    });
  });
}

function dependentOn(tx, collection, steps, id) {
  const filter = [...new Set(steps.map(({ prefix }) => `${prefix.join(".")} ?= {:id}`))].join(" || ");
  return tx.findRecordsByFilter(collection, filter, "", MAX_MOVED + 1, 0, { id });
}

/** A single event about the whole collection, to the dependents' former and new channels: for too many moves. */
function reload(collection, steps, ...states) {
  const names = new Set();
  for (const { namespace, before, rest, after } of steps) {
    for (const [relations, record] of states) {
      const values = channels.follow(relations, record, rest).map((value) => before + value + after);
      values.filter((name) => channels.isPossible(name, namespace)).forEach((name) => names.add(name));
    }
  }
  return [[...names], "reload", collection];
}

module.exports = { MAX_MOVED, stepsOf, moved };
