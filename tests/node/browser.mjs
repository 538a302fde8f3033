// A real Chromium for the tests of pages.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

/** Starts Chromium, which ends with the lab. */
export async function startBrowser(lab) {
  const browser = await chromium.launch({
    executablePath: findChromium(),
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-component-update"],
  });
  lab.defer(() => browser.close());
  return browser;
}

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ["chromium", "chromium-browser", "google-chrome"];
  for (const file of names.flatMap((name) => process.env.PATH.split(delimiter).map((folder) => join(folder, name)))) {
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {} // not in this folder
  }
  throw new Error(`none of ${names.join(", ")} is on PATH; install Chromium or set $CHROMIUM to its path`);
}
