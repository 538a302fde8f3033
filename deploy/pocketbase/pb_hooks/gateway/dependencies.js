// Derives access triggers from PocketBase's rules, so that the application does not have to list them. A trigger
// describes writes in a collection, and the users and channels whose access such a write may change:
//
//   fields    an update fires if a field in this list changes; null: every update fires
//   created   whether a create fires
//   deleted   whether a delete fires
//   cause     of the scope written into the outbox (see access.js)
//   channel   name of the field with the ids of the affected channels; "id": the id of the record itself
//   prefix    of the channels' names, as in "room:"
//   user      name of the field with the ids of the affected users; "id": the id of the record itself
//   keys      prefixes of the users' KEYs (see users.js): the prefix of one auth collection, or of every auth
//             collection if the rule compares ids, since records of two collections may have the same id
//   namespace of the affected channels; undefined: all channels of the user

const { operands } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
/** Parts of a client's request that are empty in the gateway's access checks. */
const REQUEST = /^@request\.(headers|query|body)\b/;

/**
 * {triggers: pairs of collection name and triggers, collections: ids of the collections that decide about access}, for
 * a `schema` from schema.js.
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
    // A view has no writes. Any write to a collection in the view's query may change the view in any way.
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
    // A personal channel has no guards: the owner has access until the account is deleted.
    const { guards, perUser } = schema.channels[namespace];
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

/** The rules that decide about a guard's channels: the viewRule, and the listRule as well for updates channels. */
function rulesOf(guard, isInUpdates) {
  return isInUpdates ? [guard.viewRule, guard.listRule] : [guard.viewRule];
}

/** An error message about the first operand that needs the client's own request; undefined if the rules have none. */
function unanswerable(rules) {
  for (const rule of rules) {
    const asked = operands(rule || "").find(({ name }) => REQUEST.test(name));
    if (!asked) continue;
    return (
      `the rule "${rule}" looks at ${asked.name}, but the gateway asks without headers, query and body; ` +
      "change the rule, or set emptyRequest: true if empty values are intended"
    );
  }
}

/** The triggers of a collection with `more` added; triggers with the same outcome are merged. */
function merged(triggers, more) {
  const outcome = ({ cause, channel, prefix, user, keys, namespace }) =>
    JSON.stringify([cause, channel, prefix, user, keys, namespace]);
  const same = triggers.find((trigger) => outcome(trigger) === outcome(more));
  if (!same) return [...triggers, more];
  same.fields = same.fields && more.fields && [...new Set([...same.fields, ...more.fields])];
  same.created = same.created || more.created;
  same.deleted = same.deleted || more.deleted;
  return triggers;
}

/** The triggers for a touch (see touches). `hint`: the field with the only user affected by a record (`perUser`). */
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
 * The triggers for a touch at "far". If the rule only compares a field of the record with the requesting user, as in
 * `workspace.memberships_via_workspace.member ?= @request.auth.id`, a record affects that user alone.
 */
function far(fields, lives, ends, accounts) {
  if (lives.created) {
    const user = onlyUser(ends, accounts);
    return [user ? { fields, ...lives, ...user } : { fields, ...lives, cause: "related" }];
  }
  // The record matters by its fields alone, so each field has a trigger of its own.
  return fields.map((name) => {
    const user = onlyUser(
      ends.filter(({ field }) => field === name),
      accounts,
      ["?=", "="],
    );
    return { fields: [name], ...lives, ...(user || { cause: "related" }) };
  });
}

/** Part of a trigger: all channels of a user, in every namespace. */
function ofUser(field, keys) {
  return { cause: "user", user: field, keys, namespace: undefined };
}

/** Part of a trigger: one user in the channels whose ids a field holds. */
function inChannel(channel, { user, keys }) {
  return { cause: "member", channel, user, keys };
}

/** The prefix of the KEYs of an auth collection's users. */
function keyOf(collection, accounts) {
  const account = accounts.find(({ id }) => id === collection.id);
  return account ? account.key : "";
}

function keyOfField(collection, name, accounts) {
  const field = collection.fields.getByName(name);
  const account = field && accounts.find(({ id }) => id === field.collectionId);
  return account ? account.key : "";
}

/** Part of a trigger: the user in a field, if the rules only compare the field with the requesting user; else null. */
function onlyUser(ends, accounts, signs) {
  const field = only(ends, ME, (end) => accounts.some(({ id }) => id === end.pointsTo), signs);
  return field ? ofUser(field, allKeys(accounts)) : null;
}

function allKeys(accounts) {
  return accounts.map(({ key }) => key);
}

/**
 * The name of the field, if every comparison asks whether the same field of any record (`?=`) equals `wanted`; else
 * null. With such comparisons a record affects only the user and the channel that it connects. `=` compares all records
 * at once, so a new record may also change the result for other users.
 */
function only(ends, wanted, pointsThere, signs = ["?="]) {
  if (ends.length === 0) return null;
  const [{ field }] = ends;
  const alike = (end) =>
    field && end.field === field && pointsThere(end) && signs.includes(end.sign) && end.other === wanted;
  return ends.every(alike) ? field : null;
}

/**
 * The data that the rules of a guard read: one touch for each collection and relation to the user or the guard.
 *
 *   at       "user" (the account), "guard" (the guarded record), "ofUser" or "ofGuard" (records that point to the
 *            account or the guarded record with the field `via`), "far" (other records)
 *   fields   names of the fields in use
 *   created  whether the existence of a record matters
 *   ends     {field, pointsTo, sign, other} for a comparison of a field, {field} for a relation on the way, {} for
 *            another use
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
        // A relation on the way to another record is followed, not compared.
        const plain = !leads && last && (!modifier || modifier === "each");
        here.ends.push(
          plain ? { field: name, pointsTo: field.collectionId, sign, other } : leads ? { field: name } : {},
        );
        if (name !== "id") here.fields.push(name);
        if (!leads) return;
        collection = find(app, field.collectionId);
        if (!collection) return;
        // `guests.id` is equivalent to `guests`.
        if (i === path.length - 2 && path[i + 1] === "id") {
          Object.assign(here.ends[here.ends.length - 1], { pointsTo: collection.id, sign, other });
          return;
        }
        // Creates and deletes do not matter here: no relation points to a new record yet, and a deletion also updates
        // the records that pointed to the deleted record.
        here = touch(collection, "far", undefined, false);
        continue;
      }
      const [, from, via] = /^(\w+)_via_(\w+)$/.exec(name) || [];
      collection = from ? find(app, from) : null;
      if (!collection) {
        here.ends.push({});
        return; // an unknown name: PocketBase takes it for null or denies access
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
      for (const { collection } of accounts)
        follow(collection, touch(collection, "user", undefined, false), path.slice(2), operand);
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

/** The collections in a view's query; a view in the query is replaced by the collections in its own query. */
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
    return null; // not created yet, or deleted
  }
}

module.exports = { derive, rulesOf, unanswerable };
