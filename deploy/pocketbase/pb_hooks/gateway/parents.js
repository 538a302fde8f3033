// Conditions on the user's links to a parent of the record, such as
// `workspace.memberships_via_workspace.member ?= @request.auth.id`.
//
// In SQL such a condition is a join, and its cost is the number of records times the number of links of their parents.
// Therefore the parents of the user are looked up first. The rule is then applied twice: with the condition as false,
// and with the condition as true among the records of these parents. The union of both results is the result of the
// rule, since PocketBase's rules have no negation.

const { ME, filterOfUser } = require(`${__hooks}/gateway/filter.js`);
const { operands } = require(`${__hooks}/gateway/rule.js`);

/** The parent's field, the collection of the links, the link's field for the parent, the link's field for the user. */
const PATH = /^(\w+)\.(\w+)_via_(\w+)\.(\w+)$/;
/** Maximum parents in one filter; PocketBase allows 200 conditions. */
const NAMED = 50;
/** Maximum parents of a user; with more, the rule is applied unchanged. */
const MAX_PARENTS = 500;
const [TRUE, FALSE] = ["1 = 1", "1 = 2"];

/** Filters, {text, values}, whose union are the records visible to this user. Null as in filterOfUser. */
function filtersOfUser(app, { collection }, rule, user) {
  const whole = filterOfUser(rule, user);
  const condition = whole && conditionOf(app, collection, rule);
  const parents = condition && parentsOf(app, condition, user);
  if (!parents) return whole && [whole];
  const filters = [filterOfUser(condition.replaced(FALSE), user)];
  const { text, values } = filterOfUser(condition.replaced(TRUE), user);
  for (let i = 0; i < parents.length; i += NAMED) {
    const some = parents.slice(i, i + NAMED);
    const named = some.map((_, n) => `${condition.field} = {:parent${n}}`).join(" || ");
    const more = Object.fromEntries(some.map((id, n) => [`parent${n}`, id]));
    filters.push({ text: `(${text}) && (${named})`, values: { ...values, ...more } });
  }
  return filters;
}

/**
 * The condition of the rule, {field, parent, links, back, user, replaced(text): the rule with this text instead of the
 * condition}. Null unless the rule has exactly one such condition, perhaps repeated, and no other use of the links.
 */
function conditionOf(app, collection, rule) {
  const names = operands(rule);
  const found = names.find(({ name, sign, other }) => sign === "?=" && other === ME && PATH.test(name));
  if (!found) return null;
  const [, field, from, back, user] = PATH.exec(found.name);
  const prefix = `${field}.${from}_via_${back}.`;
  const uses = names.filter(({ name }) => name.startsWith(prefix));
  const place = new RegExp(
    `(^|[^\\w.@#:])${found.name.replaceAll(".", "\\.")}\\s*\\?=\\s*${ME.replaceAll(".", "\\.")}(?![\\w.:])`,
    "g",
  );
  const isOnly = uses.every(({ name, sign, other }) => name === found.name && sign === "?=" && other === ME);
  if (!isOnly || (rule.match(place) || []).length !== uses.length) return null;

  const parent = single(collection, field);
  const links = parent && collectionOf(app, from);
  if (!links || single(links, back) !== parent || !single(links, user)) return null;
  return { field, parent, links: links.name, back, user, replaced: (text) => rule.replace(place, `$1${text}`) };
}

/** The collection id that a relation field with a single value points to; null for other fields. */
function single(collection, name) {
  const field = collection.fields.getByName(name);
  return field && field.type() === "relation" && !field.isMultiple() ? field.collectionId : null;
}

function collectionOf(app, name) {
  try {
    return app.findCachedCollectionByNameOrId(name);
  } catch {
    return null;
  }
}

/** IDs of the existing parents with a link to the user; null past MAX_PARENTS. */
function parentsOf(app, { parent, links, back, user: field }, user) {
  const found = new DynamicModel({ ids: "" });
  app
    .db()
    .newQuery(
      `SELECT coalesce(json_group_array(id), '[]') ids FROM
       (SELECT DISTINCT parents.id id FROM {{${links}}} links JOIN {{${app.findCachedCollectionByNameOrId(parent).name}}} parents
        ON parents.id = links.[[${back}]] WHERE links.[[${field}]] = {:user} LIMIT ${MAX_PARENTS + 1})`,
    )
    .bind({ user: user.id })
    .one(found);
  const ids = JSON.parse(found.ids);
  return ids.length > MAX_PARENTS ? null : ids;
}

module.exports = { filtersOfUser, conditionOf };
