// The first login of imported users with a password hash unknown to PocketBase (Argon2, Firebase's scrypt, a missing
// hash). The old backend checks the password once; then PocketBase keeps a hash of its own.
//
// KONVERT_OLD_AUTH_URL   address of the old project, as in https://abc.supabase.co; without it, nothing is asked
// KONVERT_OLD_AUTH_KEY   its publishable ("anon") key

/** Seconds that the old backend may take; a login waits that long. */
const TIMEOUT_SECONDS = 5;

/** Whether the collection knows pending passwords. */
function isBridged(record) {
  return record.collection().fields.getByName("password_pending") !== null;
}

function login(e) {
  const url = $os.getenv("KONVERT_OLD_AUTH_URL");
  if (
    url &&
    e.record &&
    e.record.getBool("password_pending") &&
    checks(e.app, url, e.record.getString("email"), e.password)
  ) {
    e.record.setPassword(e.password);
    e.record.set("password_pending", false);
    e.app.save(e.record);
  }
  return e.next();
}

/** A record event of "users": a pending password is over when the password changes. */
function changed(e) {
  if (isBridged(e.record) && e.record.getBool("password_pending") && e.record.getRaw("password").plain) {
    e.record.set("password_pending", false);
  }
  return e.next();
}

function checks(app, url, email, password) {
  try {
    const response = $http.send({
      method: "POST",
      url: `${url.replace(/\/+$/, "")}/auth/v1/token?grant_type=password`,
      headers: { "Content-Type": "application/json", apikey: $os.getenv("KONVERT_OLD_AUTH_KEY") },
      body: JSON.stringify({ email, password }),
      timeout: TIMEOUT_SECONDS,
    });
    return response.statusCode === 200 && response.json?.user?.email?.toLowerCase() === email.toLowerCase();
  } catch (err) {
    app.logger().error("konvert: the old backend did not check a password", "error", String(err));
    return false;
  }
}

module.exports = { login, changed, isBridged };
