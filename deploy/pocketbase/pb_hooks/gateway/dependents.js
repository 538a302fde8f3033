// Records whose channels depend on another record: with "board:{card.board}", the comments of a card. When the card
// moves to another board, its comments leave the old board's channel and enter the new one's.

const channels = require(`${__hooks}/gateway/channels.js`);
const schema = require(`${__hooks}/gateway/schema.js`);
const { touched } = require(`${__hooks}/gateway/fields.js`);
const { Relations } = require(`${__hooks}/gateway/relations.js`);

/** Records that one write moves one by one. Past it, clients are told to load them anew. */
const MAX_MOVED = 1000;
const NONE = [];

/** Collection id → its steps; of the schema for which they were derived. */
let known = { schema: null, steps: new Map() };

/**
 * The places where templates lead through records of this one's collection, most often none:
 *
 *   collection  relayed, with the template "before{path}after"
 *   prefix      the part of the path that leads to the records of this collection
 *   rest        the part that follows; its first field is one of theirs
 */
function steps(app, id) {
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
        if (!at) return; // removed just now
        const [prefix, rest] = [template.path.slice(0, i + 1), template.path.slice(i + 1)];
        steps.set(at, [...(steps.get(at) || NONE), { ...template, collection, prefix, rest }]);
      });
    }
  }
  return steps;
}

/** What an update of a record means for the records that depend on it, as [channels, action, record] each. */
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

/** Too many: one event for all of the collection, to all channels that they left or entered. */
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

module.exports = { MAX_MOVED, steps, moved };
