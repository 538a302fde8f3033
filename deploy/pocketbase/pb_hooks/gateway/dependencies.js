// Derives from PocketBase's own rules which writes may change a user's access to channels, so that nobody has to list
// them.
//
// The outcome is `triggers`: per collection, which writes change whose access to what.
//
//   fields    an update fires if it touches one of these; null: any
//   created   whether a create fires
//   deleted   whether a delete fires
//   cause     of the scope that is then written into the outbox (see access.js)
//   channel   the field whose values are the ids of the channels concerned; "id": the record's own
//   prefix    begins the names of these channels, as in "room:"
//   user      the field whose values are the ids of the users concerned; "id": the record's own
//   keys      what begins the KEYs of these users (see users.js): of one auth collection, or of all where the rule
//             compares ids, since records of two collections may have the same
//   namespace of the channels; none where all of a user's are meant

const { operands } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
/** Parts of a request that the gateway's questions do not have. */
const REQUEST = /^@request\.(headers|query|body)\b/;

/**
 * {triggers: [collection name, its triggers] of each, collections: the ids of all that matter}, for `schema` as
 * schema.js makes it.
 */
function derive(app, schema) {
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
    // A view has no writes of its own. Any write to a collection that its query names may change it in every way.
    const anything = { fields: null, created: true, deleted: true, cause: "related", namespace: trigger.namespace };
    for (const source of sources(app, collection)) fires(source, anything);
  };

  const accounts = schema.users.map((account) => ({ ...account, collection: find(app, account.id) }));
  for (const { collection, key, bannedUntil, mutedUntil, blocked } of accounts) {
    const fields = ["tokenKey", bannedUntil, mutedUntil, blocked].filter(Boolean);
    fires(collection, { fields, deleted: true, ...ofUser("id", [key]) });
  }
  const told = new Set(Object.values(schema.updates));
  for (const namespace in schema.channels) {
    const { guards, perUser } = schema.channels[namespace]; // owners keep their channel for as long as they exist
    for (const { id, key } of guards) {
      const guard = find(app, id);
      const prefix = `${namespace}:${key}`;
      fires(guard, { fields: [], deleted: true, cause: "deleted", channel: "id", prefix, namespace });
      for (const touch of touches(app, guard, accounts, rulesOf(guard, told.has(namespace)))) {
        collections.add(touch.collection.id);
        const hint = Object.hasOwn(perUser, touch.collection.name) ? perUser[touch.collection.name] : undefined;
        for (const trigger of outcomes(touch, guard, accounts, hint)) {
          fires(touch.collection, { namespace, ...trigger, ...(trigger.channel && { prefix }) });
        }
      }
    }
  }
  return { triggers: [...triggers], collections: [...collections] };
}

/** The rules that decide about a guard's channels; updates channels obey the listRule too. */
function rulesOf(guard, isInUpdates) {
  return isInUpdates ? [guard.viewRule, guard.listRule] : [guard.viewRule];
}

/** A sentence about the first part of these rules that needs a client's own request; nothing where there is none. */
function unanswerable(rules) {
  for (const rule of rules) {
    const asked = operands(rule || "").find(({ name }) => REQUEST.test(name));
    if (!asked) continue;
    return (
      `the rule "${rule}" looks at ${asked.name}, and the gateway's questions have no headers, query or body; ` +
      "change the rule, or say emptyRequest: true if it shall be answered as for a request without them"
    );
  }
}

/** The triggers of a collection with one more; those with the same outcome become one. */
function merged(triggers, more) {
  const outcome = ({ cause, channel, prefix, user, keys, namespace }) => JSON.stringify([cause, channel, prefix, user, keys, namespace]);
  const same = triggers.find((trigger) => outcome(trigger) === outcome(more));
  if (!same) return [...triggers, more];
  same.fields = same.fields && more.fields && [...new Set([...same.fields, ...more.fields])];
  same.created = same.created || more.created;
  same.deleted = same.deleted || more.deleted;
  return triggers;
}

/** What a touch means, as triggers. `hint`: the field with the only user whom a record of this collection concerns. */
function outcomes({ collection, at, via, fields, created, ends }, guard, accounts, hint) {
  const lives = { created, deleted: created };
  const hinted = hint && ofUser(hint, allKeys(accounts));
  switch (at) {
    case "user":
      return [{ fields, ...ofUser("id", [keyOf(collection, accounts)]) }];
    case "guard":
      return [{ fields, cause: "record", channel: "id" }];
    case "ofUser": {
      const channel = only(ends, "id", (end) => end.pointsTo === guard.id);
      const user = ofUser(via, [keyOfField(collection, via, accounts)]);
      return [{ fields, ...lives, ...(channel ? inChannel(channel, user) : user) }];
    }
    case "ofGuard": {
      const user = hinted || onlyUser(ends, accounts);
      return [
        user
          ? { fields: [...fields, user.user], ...lives, ...inChannel(via, user) }
          : { fields, ...lives, cause: "related", channel: via },
      ];
    }
    default:
      if (hinted) return [{ fields: [...fields, hint], ...lives, ...hinted }];
      return far(fields, lives, ends, accounts);
  }
}

/**
 * Records that are neither the user's nor the guard's neighbours. Where the rule only asks whether a field of theirs
 * is the user who asks, as in `workspace.memberships_via_workspace.member ?= @request.auth.id`, a record concerns
 * that user alone.
 */
function far(fields, lives, ends, accounts) {
  if (lives.created) {
    const user = onlyUser(ends, accounts);
    return [user ? { fields, ...lives, ...user } : { fields, ...lives, cause: "related" }];
  }
  // Such a record counts by its fields alone, so each field may be looked at by itself.
  return fields.map((name) => {
    const user = onlyUser(ends.filter(({ field }) => field === name), accounts, ["?=", "="]);
    return { fields: [name], ...lives, ...(user || { cause: "related" }) };
  });
}

/** Everything that a user is subscribed to, whatever its namespace. */
function ofUser(field, keys) {
  return { cause: "user", user: field, keys, namespace: undefined };
}

/** This user in the channels that a field names. */
function inChannel(channel, { user, keys }) {
  return { cause: "member", channel, user, keys };
}

/** What begins the KEYs of an auth collection's users. */
function keyOf(collection, accounts) {
  const account = accounts.find(({ id }) => id === collection.id);
  return account ? account.key : "";
}

function keyOfField(collection, name, accounts) {
  const field = collection.fields.getByName(name);
  const account = field && accounts.find(({ id }) => id === field.collectionId);
  return account ? account.key : "";
}

/** The user in the one field that these comparisons look at, if each asks only whether it is the user who asks. */
function onlyUser(ends, accounts, signs) {
  const field = only(ends, ME, (end) => accounts.some(({ id }) => id === end.pointsTo), signs);
  return field ? ofUser(field, allKeys(accounts)) : null;
}

function allKeys(accounts) {
  return accounts.map(({ key }) => key);
}

/**
 * The one field of these comparisons, if each asks no more than that this field of some record be `wanted`. Then a
 * record concerns nobody but the two that it brings together. `=` asks all records at once, so a record more may
 * change the answer for others.
 */
function only(ends, wanted, pointsThere, signs = ["?="]) {
  if (ends.length === 0) return null;
  const [{ field }] = ends;
  const alike = (end) => field && end.field === field && pointsThere(end) && signs.includes(end.sign) && end.other === wanted;
  return ends.every(alike) ? field : null;
}

/**
 * Everything that the rules of a guard look at: one touch per collection and way there.
 *
 *   at       "user" (the account itself), "guard" (the record itself), "ofUser", "ofGuard" (records that
 *            point there with their field `via`), "far" (anywhere else)
 *   fields   that are looked at
 *   created  whether records count by being there
 *   ends     {field, pointsTo, sign, other} for each comparison of one of their fields, {} for any other use of them
 */
function touches(app, guard, accounts, rules) {
  const found = new Map();
  const touch = (collection, at, via, created) => {
    const key = `${collection.id} ${at} ${via}`;
    if (!found.has(key)) found.set(key, { collection, at, via, fields: [], created: false, ends: [] });
    const one = found.get(key);
    one.created = one.created || created;
    return one;
  };

  const follow = (collection, here, path, { sign, other }) => {
    for (const [i, segment] of path.entries()) {
      const [name, modifier] = segment.split(":");
      const last = i === path.length - 1;
      const field = collection.fields.getByName(name);
      if (field) {
        const leads = !last && field.type() === "relation";
        // On the way to another record the field has to be followed, and is compared with nothing.
        const plain = !leads && last && (!modifier || modifier === "each");
        here.ends.push(plain ? { field: name, pointsTo: field.collectionId, sign, other } : leads ? { field: name } : {});
        if (name !== "id") here.fields.push(name);
        if (!leads) return;
        collection = find(app, field.collectionId);
        if (!collection) return;
        // `guests.id` asks for no more than `guests` does.
        if (i === path.length - 2 && path[i + 1] === "id") {
          Object.assign(here.ends[here.ends.length - 1], { pointsTo: collection.id, sign, other });
          return;
        }
        // Nothing points to a record before it is there, and what pointed to one that is gone is updated with it.
        here = touch(collection, "far", undefined, false);
        continue;
      }
      const [, from, via] = /^(\w+)_via_(\w+)$/.exec(name) || [];
      collection = from ? find(app, from) : null;
      if (!collection) {
        here.ends.push({});
        return; // an unknown name: PocketBase takes it for null, or lets nobody in
      }
      const direct = { user: "ofUser", guard: "ofGuard" }[here.at];
      here = touch(collection, direct || "far", direct && via, true);
      here.fields.push(via);
      if (last) here.ends.push({});
    }
  };

  for (const operand of rules.flatMap((rule) => operands(rule || ""))) {
    const path = operand.name.split(".");
    if (operand.name.startsWith("@request.auth.")) {
      for (const { collection } of accounts) follow(collection, touch(collection, "user", undefined, false), path.slice(2), operand);
    } else if (path[0] === "@collection") {
      const collection = find(app, (path[1] || "").split(":")[0]);
      if (!collection) continue;
      follow(collection, touch(collection, "far", undefined, true), path.slice(2), operand);
    } else if (!operand.name.startsWith("@")) {
      follow(guard, touch(guard, "guard", undefined, false), path, operand);
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

module.exports = { derive, rulesOf, unanswerable };
