// Files of the built chat: gzip copies where the build has made some, and a lifetime of a year, since the names carry a
// hash of the content.

const LIFETIME = "public, max-age=31536000, immutable";
const TYPES = { js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8" };

/** PocketBase's public folder: the flag --publicDir, else beside pb_data. */
function publicFolder() {
  const flags = $os.args.map(String);
  const at = flags.indexOf("--publicDir");
  const flag = at >= 0 ? flags[at + 1] : flags.find((one) => one.startsWith("--publicDir="))?.slice(12);
  return flag ?? $filepath.join($app.dataDir(), "../pb_public");
}

/** The folder with the chat's scripts; "" without a built chat. */
function assets() {
  const folder = $filepath.join(publicFolder(), "assets");
  return exists(folder) ? folder : "";
}

function exists(path) {
  try {
    $os.stat(path);
    return true;
  } catch {
    return false;
  }
}

function send(e) {
  const files = $os.dirFS(assets());
  const name = e.request.pathValue("path");
  const isName = /^[\w.-]+$/.test(name) && !name.startsWith(".");
  const headers = e.response.header();
  if (isName && /-[\w-]{8}\.\w+$/.test(name)) headers.set("Cache-Control", LIFETIME);
  const type = TYPES[name.split(".").at(-1)];
  const takesGzip = e.request.header.get("Accept-Encoding").includes("gzip");
  if (!isName || !type || !takesGzip || !exists($filepath.join(assets(), `${name}.gz`))) return e.fileFS(files, name);
  headers.set("Content-Type", type);
  headers.set("Content-Encoding", "gzip");
  headers.add("Vary", "Accept-Encoding");
  return e.fileFS(files, `${name}.gz`);
}

module.exports = { assets, send };
