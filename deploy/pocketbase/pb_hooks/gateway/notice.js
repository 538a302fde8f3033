// Log lines about conditions that may recur with every write: at most a line per minute and key.

const INTERVAL = 60_000;

/** Logs a warning with the properties of `details`, at most once per minute for each key. */
function warn(app, key, message, details) {
  const now = Date.now();
  let due = false;
  app.store().setFunc(`gateway.notice.${key}`, (last) => {
    due = !last || now - last >= INTERVAL;
    return due ? now : last;
  });
  if (due) app.logger().warn(`gateway: ${message}`, ...Object.entries(details).flat());
}

module.exports = { warn };
