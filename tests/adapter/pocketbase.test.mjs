// PocketBaseAdapter on real PocketBase and a real gateway, through the contract of all adapters.

import { contract } from "./contract.mjs";
import { PASSWORD, Stage } from "./stage.mjs";

contract("PocketBaseAdapter", async () => Object.assign(await Stage.start(), { password: PASSWORD }));
