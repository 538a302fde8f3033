// Parser for PocketBase's rules: operands, and the tree of conditions.

// In this order: comment, text, function, name, number, sign, join, brackets and commas.
const TOKEN =
  /\/\/[^\n]*|("(?:\\"|[^"])*"|'(?:\\'|[^'])*')|([@#_a-zA-Z][\w.:]*\()|([@#_a-zA-Z][\w.:]*)|(-?[\d.]+)|([=?!<>~]+)|(&&|\|\||[(),])/g;

/**
 * The names in a rule, in order. A name that is compared with another name has `sign` and `other`: `a.b ?= id` gives
 * {name: "a.b", sign: "?=", other: "id"} and {name: "id", sign: "?=", other: "a.b"}.
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

/** The rule with names replaced by the result of `replacement(name)`; a name stays if the result is empty. */
function substitute(rule, replacement) {
  return rule.replace(TOKEN, (whole, _text, _call, name) => (name && replacement(name)) || whole);
}

/** The rule without comments, so that more text can be appended. */
function withoutComments(rule) {
  return rule.replace(TOKEN, (whole) => (whole.startsWith("//") ? "" : whole));
}

/**
 * The rule as a tree: {and: [trees]}, {or: [trees]}, or {left, sign, right} for a condition with {name}, {call: text of
 * a function call} or {value: text} as sides. The tree contains the names after `rename(name)`. An empty rule is
 * {and: []}, which is always true. Null if the rule cannot be parsed.
 */
function tree(rule, rename = (name) => name) {
  const tokens = [];
  for (const [whole, text, call, name, number, sign, mark] of rule.matchAll(TOKEN)) {
    if (name) tokens.push(isValue(name) ? { value: name } : { name: rename(name) });
    else if (sign) tokens.push({ sign });
    else if (mark) tokens.push({ mark });
    else if (call) tokens.push({ call });
    else if (text) tokens.push({ value: JSON.stringify(text.slice(1, -1)) });
    else if (number) tokens.push({ value: whole });
  }
  if (tokens.length === 0) return { and: [] };
  let at = 0;
  const mark = (wanted) => tokens[at] && tokens[at].mark === wanted && ++at;
  const list = (kind, joint, part) => {
    const parts = [part()];
    while (mark(joint)) parts.push(part());
    return parts.length === 1 ? parts[0] : { [kind]: parts };
  };
  const either = () => list("or", "||", both);
  const both = () => list("and", "&&", unit);
  const unit = () => {
    if (mark("(")) {
      const inner = either();
      if (!mark(")")) throw new SyntaxError("a bracket is not closed");
      return inner;
    }
    const left = side();
    const { sign } = tokens[at++] || {};
    if (!sign) throw new SyntaxError("a condition has no sign");
    return { left, sign, right: side() };
  };
  const side = () => {
    const token = tokens[at++];
    if (!token || token.sign || token.mark) throw new SyntaxError("a condition has a side too few");
    if (!token.call) return token;
    let text = token.call;
    for (let open = 1; open > 0; at++) {
      const inner = tokens[at];
      if (!inner) throw new SyntaxError("a function is not closed");
      open += inner.call || inner.mark === "(" ? 1 : inner.mark === ")" ? -1 : 0;
      text += inner.name || inner.value || inner.call || inner.mark || inner.sign;
    }
    return { call: text };
  };
  try {
    const whole = either();
    return at === tokens.length ? whole : null;
  } catch (err) {
    if (err instanceof SyntaxError) return null;
    throw err;
  }
}

function isValue(name) {
  return ["true", "false", "null"].includes(name.toLowerCase());
}

module.exports = { operands, substitute, withoutComments, tree };
