// Collections as data, with the part of PocketBase's interface that the rule reading uses.

const TYPES = ["text", "number", "bool", "date", "select", "json", "email"];

/**
 * An app with these collections: {name: {fields, auth, viewRule, listRule, viewQuery}}. `fields` is {name: type}, where
 * the name of a collection means a relation to it, and [name] or ["select"] a field with several values.
 */
export function appWith(definitions) {
  const collections = Object.entries(definitions).map(([name, definition]) => collectionOf(name, definition));
  return {
    findAllCollections: () => collections,
    findCachedCollectionByNameOrId(nameOrId) {
      const found = collections.find(({ id, name }) => id === nameOrId || name === nameOrId);
      if (!found) throw new Error(`there is no collection ${nameOrId}`);
      return found;
    },
  };
}

const idOf = (collection) => `${collection}_id`;

function collectionOf(name, { fields = {}, auth = false, viewRule = null, listRule = null, viewQuery }) {
  const all = Object.entries({ id: "text", ...fields }).map(([field, type]) => fieldOf(field, type));
  all.getByName = (wanted) => all.find((field) => field.name === wanted) ?? null;
  return {
    ...{ id: idOf(name), name, fields: all, viewRule, listRule, viewQuery },
    isAuth: () => auth,
    isView: () => viewQuery !== undefined,
  };
}

function fieldOf(name, type) {
  const several = Array.isArray(type);
  const [kind] = [type].flat();
  const field = { name, maxSelect: several ? 9 : 1, isMultiple: () => several };
  if (TYPES.includes(kind)) return { ...field, type: () => kind };
  return { ...field, type: () => "relation", collectionId: idOf(kind) };
}

/** A record of a collection of `app`; `values` as PocketBase stores them: texts, and lists of ids for relations. */
export function recordOf(app, collection, id, values = {}) {
  const all = { id, ...values };
  return {
    id,
    collection: () => app.findCachedCollectionByNameOrId(collection),
    get: (field) => all[field],
    getString: (field) => String(all[field] ?? ""),
    getStringSlice: (field) => [all[field] ?? []].flat().filter((value) => value !== ""),
  };
}
