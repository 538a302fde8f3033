// A rule as a filter for one user: the account's fields become parameters.

const { substitute } = require(`${__hooks}/gateway/rule.js`);

const ME = "@request.auth.id";
const AUTH = "@request.auth.";
/** Types of fields with a single value, usable as a parameter of a filter. */
const SCALARS = ["text", "email", "url", "editor", "date", "autodate", "select", "bool", "number"];

/** Whether the field of an auth collection has a single value, usable as a parameter. */
function isScalar(users, name) {
  const field = users.fields.getByName(name);
  return Boolean(field) && SCALARS.includes(field.type()) && !(field.maxSelect > 1);
}

/** The value of an account's field as a parameter of a filter. */
function scalar(user, name) {
  const value = user.get(name);
  return ["boolean", "number", "string"].includes(typeof value) ? value : user.getString(name);
}

/**
 * A filter, {text, values}, for the records visible to this user; null for rules that use more of the request than
 * plain fields of the account. `replaced(name)` returns an alternative text for a name, or null.
 */
function filterOfUser(rule, user, replaced = () => null) {
  const values = {};
  const text = substitute(rule, (operand) => {
    if (!operand.startsWith("@request.")) return null;
    const other = replaced(operand);
    if (other) return other;
    const field = user && operand.startsWith(AUTH) ? operand.slice(AUTH.length) : "";
    if (field !== "id" && !(field && isScalar(user.collection(), field))) {
      values.impossible = true;
      return null;
    }
    const key = `of${field}`;
    values[key] = scalar(user, field);
    return `{:${key}}`;
  });
  return values.impossible ? null : { text, values };
}

module.exports = { ME, AUTH, filterOfUser, isScalar, scalar };
