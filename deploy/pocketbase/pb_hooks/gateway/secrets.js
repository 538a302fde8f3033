// The secrets shared with the gateway. GATEWAY_SECRET signs requests and is accepted; during a change of the secret,
// GATEWAY_SECRET_SECOND is accepted as well. GATEWAY_SECRET_FILE and GATEWAY_SECRET_SECOND_FILE may name files with the
// secrets instead.

/** Key in the app's store: {own, second}, read from the environment once, when PocketBase starts. */
const KEY = "gateway.secrets";
const MIN_LENGTH = 32;

/** Reads and checks the secrets; the error says which variable to set. */
function load() {
  const own = read("GATEWAY_SECRET");
  const second = read("GATEWAY_SECRET_SECOND");
  if (own.length < MIN_LENGTH) {
    const now = own ? `has ${own.length} characters` : "is not set";
    throw new Error(
      `GATEWAY_SECRET ${now}; it needs at least ${MIN_LENGTH} characters. ` +
        `Create one with "openssl rand -hex 32" and give the gateway the same secret.`,
    );
  }
  if (second && second.length < MIN_LENGTH) {
    throw new Error(
      `GATEWAY_SECRET_SECOND has ${second.length} characters; it needs at least ${MIN_LENGTH}, or leave it unset.`,
    );
  }
  $app.store().set(KEY, { own, second });
}

function read(name) {
  const value = $os.getenv(name);
  const file = $os.getenv(`${name}_FILE`);
  if (!file) return value;
  if (value) throw new Error(`${name} and ${name}_FILE are both set; unset one of the two.`);
  try {
    return toString($os.readFile(file)).replace(/\r?\n$/, "");
  } catch (err) {
    throw new Error(`${name}_FILE: ${file} cannot be read: ${err}`);
  }
}

/** {own, second}. Commands other than `serve` do not call `load`, but may write records too. */
function current() {
  return $app.store().get(KEY) || { own: read("GATEWAY_SECRET"), second: read("GATEWAY_SECRET_SECOND") };
}

/** The secret that signs requests. */
function signing() {
  return current().own;
}

/** The secrets accepted in signatures. */
function accepted() {
  const { own, second } = current();
  return [own, second].filter((secret) => secret);
}

module.exports = { load, signing, accepted };
