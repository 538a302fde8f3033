// Log lines about what may happen with every write: at most one per minute and key, so that they do not fill the log.

const INTERVAL = 60_000;

/** Logs a warning, unless one with this key was logged within the last minute. `details`: name, value, name, value … */
function warn(app, key, message, ...details) {
  const now = Date.now();
  let due = false;
  app.store().setFunc(`gateway.notice.${key}`, (last) => {
    due = !last || now - last >= INTERVAL;
    return due ? now : last;
  });
  if (due) app.logger().warn(`gateway: ${message}`, ...details);
}

module.exports = { warn };
