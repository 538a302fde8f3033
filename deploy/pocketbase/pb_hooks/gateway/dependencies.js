// Derives from PocketBase's own rules what a user's access to channels depends on, so that nobody has to list it.
//
// The outcome is `triggers`: per collection, which writes change whose access to what.
//
//   fields    an update fires if it touches one of these; null: any
//   created   whether a create fires
//   deleted   whether a delete fires
//   cause     of the scope that is then written into the outbox (see access.js)
//   channel   the field whose values are the IDs of the channels concerned; "id": the record's own
//   user      the same for users
//   namespace of the channels; none where all of a user's are meant

const config = require(`${__hooks}/gateway.config.js`);
const { operands } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";

/** {triggers: [collection name, its triggers] of each, collections: the IDs of all that matter}. */
function derive(app) {
  const triggers = new Map();
  const collections = new Set();

  const fires = (collection, trigger) => {
    collections.add(collection.id);
    const { fields, created, deleted } = trigger;
    if (fields && fields.length === 0 && !created && !deleted) return;
    if (!collection.isView()) {
      triggers.set(collection.name, merged(triggers.get(collection.name) || [], trigger));
      return;
    }
    // A view has no writes of its own. What its query names may change it in every way.
    const anything = { fields: null, created: true, deleted: true, cause: "related", namespace: trigger.namespace };
    for (const source of sources(app, collection)) fires(source, anything);
  };

  const users = find(app, config.users.collection);
  if (users) {
    const { bannedUntil, mutedUntil, blocked } = config.users;
    const fields = ["tokenKey", bannedUntil, mutedUntil, blocked].filter(Boolean);
    fires(users, { fields, deleted: true, ...ofUser("id") });
  }
  for (const namespace in config.channels) {
    const guard = find(app, config.channels[namespace].guard);
    if (!guard) continue;
    const perUser = new Map(Object.entries(config.channels[namespace].perUser || {}));
    fires(guard, { fields: [], deleted: true, cause: "deleted", channel: "id", namespace });
    for (const touch of touches(app, guard, users)) {
      fires(touch.collection, { namespace, ...trigger(touch, guard, users, perUser.get(touch.collection.name)) });
    }
  }
  return { triggers: [...triggers], collections: [...collections] };
}

/** The triggers of a collection with one more; those with the same outcome become one. */
function merged(triggers, more) {
  const outcome = ({ cause, channel, user, namespace }) => JSON.stringify([cause, channel, user, namespace]);
  const same = triggers.find((trigger) => outcome(trigger) === outcome(more));
  if (!same) return [...triggers, more];
  same.fields = same.fields && more.fields && [...new Set([...same.fields, ...more.fields])];
  same.created = same.created || more.created;
  same.deleted = same.deleted || more.deleted;
  return triggers;
}

/** What a touch means. `hint`: the field with the only user whom a record of this collection concerns. */
function trigger({ at, via, fields, created, ends }, guard, users, hint) {
  const lives = { created, deleted: created };
  switch (at) {
    case "user":
      return { fields, ...ofUser("id") };
    case "guard":
      return { fields, cause: "record", channel: "id" };
    case "ofUser": {
      const channel = only(ends, guard, "id");
      return channel
        ? { fields, ...lives, cause: "member", channel, user: via }
        : { fields, ...lives, ...ofUser(via) };
    }
    case "ofGuard": {
      const user = hint || (users && only(ends, users, ME));
      return user
        ? { fields: [...fields, user], ...lives, cause: "member", channel: via, user }
        : { fields, ...lives, cause: "related", channel: via };
    }
    default:
      return hint
        ? { fields: [...fields, hint], ...lives, ...ofUser(hint) }
        : { fields, ...lives, cause: "related" };
  }
}

/** Everything that a user is subscribed to, whatever its namespace. */
function ofUser(field) {
  return { cause: "user", user: field, namespace: undefined };
}

/**
 * The one field that points to `target`, if all that the rule asks of the related records is that this field of
 * one of them be `wanted`. Then a record concerns nobody but the two that it brings together. `=` asks all of them
 * at once, so one more may change the answer for the others.
 */
function only(ends, target, wanted) {
  const [{ field }] = ends;
  const alike = (end) => end.field === field && end.pointsTo === target.id && end.sign === "?=" && end.other === wanted;
  return ends.every(alike) ? field : null;
}

/**
 * Everything that the rule of a guard looks at: one touch per collection and way there.
 *
 *   at       "user" (the account itself), "guard" (the record itself), "ofUser", "ofGuard" (records that
 *            point there with their field `via`), "far" (anywhere else)
 *   fields   that are looked at
 *   created  whether records count by being there
 *   ends     for ofUser and ofGuard: {field, pointsTo, sign, other} for each comparison of one of their fields,
 *            {} for whatever else is asked of them
 */
function touches(app, guard, users) {
  const found = new Map();
  const touch = (collection, at, via, created) => {
    const key = `${collection.id} ${at} ${via}`;
    if (!found.has(key)) found.set(key, { collection, at, via, fields: [], created: false, ends: [] });
    const one = found.get(key);
    one.created = one.created || created;
    return one;
  };

  const follow = (collection, at, path, { sign, other }) => {
    let here = touch(collection, at, undefined, false);
    for (const [i, segment] of path.entries()) {
      const [name, modifier] = segment.split(":");
      const last = i === path.length - 1;
      const field = collection.fields.getByName(name);
      if (here.via) {
        const plain = field && last && (!modifier || modifier === "each");
        here.ends.push(plain ? { field: name, pointsTo: field.collectionId, sign, other } : {});
      }
      if (field) {
        if (name !== "id") here.fields.push(name);
        if (last || field.type() !== "relation") return;
        collection = find(app, field.collectionId);
        if (!collection) return;
        // Nothing points to a record before it is there, and what pointed to one that is gone is updated with it.
        here = touch(collection, "far", undefined, false);
        continue;
      }
      const [, from, via] = /^(\w+)_via_(\w+)$/.exec(name) || [];
      collection = from ? find(app, from) : null;
      if (!collection) return; // an unknown name: PocketBase takes it for null, or lets nobody in
      const direct = { user: "ofUser", guard: "ofGuard" }[here.at];
      here = touch(collection, direct || "far", direct && via, true);
      here.fields.push(via);
      if (last) here.ends.push({});
    }
  };

  for (const operand of operands(guard.viewRule || "")) {
    const path = operand.name.split(".");
    if (operand.name.startsWith("@request.auth.")) {
      if (users) follow(users, "user", path.slice(2), operand);
    } else if (path[0] === "@collection") {
      const collection = find(app, (path[1] || "").split(":")[0]);
      if (!collection) continue;
      touch(collection, "far", undefined, true);
      follow(collection, "far", path.slice(2), operand);
    } else if (!operand.name.startsWith("@")) {
      follow(guard, "guard", path, operand);
    }
  }
  return found.values();
}

/** The collections that a view's query names, and, in place of views, what theirs name. */
function sources(app, view, seen = new Set()) {
  seen.add(view.id);
  const words = new Set(view.viewQuery.match(/\w+/g));
  return app
    .findAllCollections()
    .filter(({ id, name }) => words.has(name) && !seen.has(id))
    .flatMap((source) => (source.isView() ? sources(app, source, seen) : [source]));
}

function find(app, nameOrId) {
  try {
    return app.findCachedCollectionByNameOrId(nameOrId);
  } catch {
    return null; // not yet or no longer there
  }
}

module.exports = { derive };
