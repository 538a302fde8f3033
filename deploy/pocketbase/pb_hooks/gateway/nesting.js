// The nesting of a record's JSON. The parsers of some SDKs fail on deep JSON, which ends the client's connection.

/** Maximum levels of arrays and objects in a record, the record itself included; the same limit as for signals. */
const MAX_LEVELS = 128;

/** Strings, and runs of other characters except brackets. */
const NO_BRACKETS = /"(?:[^"\\]|\\.)*"|[^[\]{}"]+/g;

/** Whether a JSON text is nested deeper than MAX_LEVELS. */
function isTooDeep(json) {
  // Fewer brackets than levels: not too deep. In PocketBase's engine this count is far faster than the loop below.
  if (json.split("{").length + json.split("[").length - 2 <= MAX_LEVELS) return false;
  const brackets = json.replace(NO_BRACKETS, "");
  for (let i = 0, level = 0; i < brackets.length; i++) {
    const bracket = brackets[i];
    if (bracket === "}" || bracket === "]") level--;
    else if (++level > MAX_LEVELS) return true;
  }
  return false;
}

module.exports = { isTooDeep };
