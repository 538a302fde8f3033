// Prometheus of compose.yaml's profile "monitoring", with Debian's program in the place of the public image's.

import { cpSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

import { BASE, TOOLS } from "./dockerd.mjs";

const PROGRAM = ["/usr/bin/prometheus", path.join(TOOLS, "prometheus/usr/bin/prometheus")].find(existsSync);
// User, folder and entry point as in the public image.
const DOCKERFILE = `FROM ${BASE}
COPY prometheus /bin/prometheus
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534:65534
ENTRYPOINT ["/bin/prometheus"]
`;

export class Prometheus {
  /** Starts the service of the stack. */
  static async start(stack) {
    const folder = path.join(stack.folder, "prometheus");
    mkdirSync(folder);
    cpSync(PROGRAM, path.join(folder, "prometheus"));
    writeFileSync(path.join(folder, "Dockerfile"), DOCKERFILE);
    stack.dockerd.docker(["build", "--quiet", "--tag", stack.env.PROMETHEUS_IMAGE, folder]);
    stack.compose(["--profile", "monitoring", "up", "--detach", "prometheus"]);
    return new Prometheus(`http://127.0.0.1:${stack.env.PROMETHEUS_PORT}`);
  }

  constructor(url) {
    this.url = url;
  }

  /** The data of an API answer, or undefined while Prometheus does not answer. */
  async ask(target) {
    const response = await fetch(`${this.url}/api/v1/${target}`).catch(() => undefined);
    return response?.ok ? (await response.json()).data : undefined;
  }

  /** The number that an expression has now, or undefined. */
  async value(expression) {
    const answer = await this.ask(`query?query=${encodeURIComponent(expression)}`);
    const value = answer?.result[0]?.value[1];
    return value === undefined ? undefined : Number(value);
  }

  /** Names of the firing alerts. */
  async firing() {
    const { alerts } = await this.ask("alerts");
    return alerts.filter(({ state }) => state === "firing").map(({ labels }) => labels.alertname);
  }
}
