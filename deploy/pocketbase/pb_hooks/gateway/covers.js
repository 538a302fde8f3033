// Proof from two viewRules that all subscribers of a channel may view the records relayed into the channel. The common
// cases are found; without a proof the answer is no.

const { tree } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
const SIGNED_IN = { left: { name: ME }, sign: "!=", right: { value: '""' } };
/** Signs with interchangeable sides. */
const SYMMETRIC = ["=", "!=", "?=", "?!="];
/** Maximum depth of nested case distinctions. */
const DEPTH = 6;

/**
 * An error message if subscribers of a template's channels may lack permission to view records of `collection`;
 * undefined if the permission was proved.
 *
 *   path       of the template, to the field with the channel's id
 *   guard      the collection whose viewRule opens the channel; null for the personal channel of a user
 *   listeners  {users, guests} of the config: the possible connections
 */
function uncovered(app, collection, path, guard, listeners) {
  const { viewRule } = collection;
  const fields = fieldsOf(app, collection, path);
  if (viewRule === "" || (guard && guard.viewRule === null)) return; // a locked guard admits superusers only, who may view every record
  if (viewRule === null) return `the viewRule of "${collection.name}" is locked`;
  const goal = tree(viewRule);
  // A record of another collection may have the id of a guarded record, by chance or by intention.
  const isAtGuard = guard && fields[fields.length - 1].leadsTo === guard.id;
  const facts = guard ? (isAtGuard ? factsOfGuard(guard, fields) : []) : factsOfOwner(fields);
  facts.push(...factsOfListeners(listeners, guard));
  if (goal && proves(flat(facts), goal, DEPTH)) return;
  const who = guard ? `users who may view "${guard.name}"` : "the owner of the channel";
  return `${who} would receive these records, possibly without permission to view them: the viewRule of "${collection.name}" is ${viewRule}`;
}

/** Facts about every connection: a login and no current ban, unless guests are admitted. */
function factsOfListeners({ users, guests }, guard) {
  if (guests && guard) return [];
  if (users.length === 0) return [SIGNED_IN]; // all auth collections are gone: nobody can connect
  const [{ bannedUntil }] = users;
  const isBan = bannedUntil !== undefined && users.every((account) => account.bannedUntil === bannedUntil);
  const isOver = { left: { name: `@request.auth.${bannedUntil}` }, sign: "<=", right: { name: "@now" } };
  return isBan ? [SIGNED_IN, isOver] : [SIGNED_IN];
}

/**
 * The fields along a path, as {name, many: whether the field holds several values, leadsTo: the collection (id) of the
 * records whose ids are the values, or null}.
 */
function fieldsOf(app, start, path) {
  let at = start;
  return path.map((name) => {
    const field = at.fields.getByName(name);
    const isRelation = field.type() === "relation";
    if (isRelation) at = app.findCachedCollectionByNameOrId(field.collectionId);
    return { name, many: isRelation && field.maxSelect > 1, leadsTo: isRelation || name === "id" ? at.id : null };
  });
}

/** The guard's rule as facts about a relayed record: each field name is prefixed with the path to the guard. */
function factsOfGuard({ viewRule }, fields) {
  const path = fields.map(({ name }) => name).filter((name, i) => name !== "id" || i < fields.length - 1);
  const rename = (name) => (name[0] === "@" ? name : [...path, name].join("."));
  const rule = viewRule === null ? null : tree(viewRule, rename);
  if (!rule) return [];
  // A path to several guards: the rule holds for at least one guard, so only the any-of conditions (`?=`) are known.
  return fields.some(({ many }) => many) ? [anyOf(rule)] : [rule];
}

function anyOf(rule) {
  if (rule.or) return { or: rule.or.map(anyOf) };
  if (rule.and) return { and: rule.and.map(anyOf) };
  const names = [rule.left.name, rule.right.name].filter(Boolean);
  return rule.sign[0] === "?" || names.every((name) => name[0] === "@") ? rule : { and: [] };
}

/** Facts about a record in a personal channel: the template's field holds the subscriber's id. */
function factsOfOwner(fields) {
  const path = fields.map(({ name }) => name).join(".");
  const names = fields[fields.length - 1].name === "id" ? [path] : [path, `${path}.id`];
  const signs = fields.some(({ many }) => many) ? ["?="] : ["=", "?="];
  return names.flatMap((name) => signs.map((sign) => ({ left: { name }, sign, right: { name: ME } })));
}

/** {conditions: texts of true conditions, cases: lists of alternatives, at least one true in each list} */
function flat(facts) {
  const known = { conditions: new Set(), cases: [] };
  const take = (fact) => {
    if (fact.and) fact.and.forEach(take);
    else if (fact.or) known.cases.push(fact.or);
    else known.conditions.add(text(fact));
  };
  facts.forEach(take);
  return known;
}

function proves({ conditions, cases }, goal, depth) {
  if (goal.and) return goal.and.every((part) => proves({ conditions, cases }, part, depth));
  if (goal.or ? goal.or.some((part) => proves({ conditions, cases }, part, 0)) : conditions.has(text(goal)))
    return true;
  if (depth === 0) return false;
  return cases.some((alternatives, i) => {
    const others = cases.filter((_, j) => j !== i);
    return alternatives.every((one) => {
      const more = flat([one]);
      const known = { conditions: new Set([...conditions, ...more.conditions]), cases: [...others, ...more.cases] };
      return proves(known, goal, depth - 1);
    });
  });
}

function text({ left, sign, right }) {
  const sides = [left, right].map((side) => JSON.stringify(side));
  return (SYMMETRIC.includes(sign) ? sides.sort() : sides).join(sign);
}

module.exports = { uncovered };
