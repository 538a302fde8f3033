// Reads a PocketBase rule as far as its operands: what it names, and what that is compared with.

// In this order: comment, text, function, name, number, sign, join, brackets and commas.
const TOKEN =
  /\/\/[^\n]*|("(?:\\"|[^"])*"|'(?:\\'|[^'])*')|([@#_a-zA-Z][\w.:]*\()|([@#_a-zA-Z][\w.:]*)|(-?[\d.]+)|([=?!<>~]+)|(&&|\|\||[(),])/g;

/**
 * The names in a rule, in order, each with `sign` and `other` where it is one side of a comparison and a name is
 * the other one: `a.b ?= id` gives {name: "a.b", sign: "?=", other: "id"} and {name: "id", sign: "?=", other: "a.b"}.
 */
function operands(rule) {
  const tokens = [];
  for (const [, text, call, name, number, sign, mark] of rule.matchAll(TOKEN)) {
    if (name) tokens.push({ name });
    else if (sign) tokens.push({ sign });
    else if (text || call || number || mark) tokens.push({});
  }
  const found = [];
  tokens.forEach(({ name }, i) => {
    if (!name) return;
    const [before, after] = [tokens[i - 1] || {}, tokens[i + 1] || {}];
    const [sign, other] = after.sign ? [after.sign, tokens[i + 2]] : before.sign ? [before.sign, tokens[i - 2]] : [];
    found.push(other && other.name ? { name, sign, other: other.name } : { name });
  });
  return found;
}

/** The rule with each name replaced by what `replacement(name)` gives, if anything. */
function substitute(rule, replacement) {
  return rule.replace(TOKEN, (whole, text, call, name) => (name && replacement(name)) || whole);
}

module.exports = { operands, substitute };
