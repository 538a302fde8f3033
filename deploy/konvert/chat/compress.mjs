// Writes a gzip copy beside each script and style sheet of the build, for servers that send such copies (see
// ../pocketbase/pb_hooks/site.pb.js).

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const folder = new URL("dist/assets/", import.meta.url);
/** Smaller files gain nothing. */
const SMALLEST = 1024;

for (const name of readdirSync(folder)) {
  const content = readFileSync(new URL(name, folder));
  if (/\.(js|css)$/.test(name) && content.length >= SMALLEST) {
    writeFileSync(new URL(`${name}.gz`, folder), gzipSync(content, { level: 9 }));
  }
}
