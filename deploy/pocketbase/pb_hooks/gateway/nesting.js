// The nesting of a record's JSON: parsers of some SDKs fail on deep JSON, and take the client's connection with them.

/** Levels of arrays and objects in a record, the record itself included; the same limit as for signals. */
const MAX_LEVELS = 128;

/** Strings, and everything else that is no bracket. */
const NO_BRACKETS = /"(?:[^"\\]|\\.)*"|[^[\]{}"]+/g;

/** Whether a JSON text is nested deeper than MAX_LEVELS. */
function isTooDeep(json) {
  // With fewer brackets than levels it cannot be. PocketBase's engine counts far faster than it loops.
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
