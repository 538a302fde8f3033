import { contract } from "./contract.mjs";
import { Stage } from "./supabase/stage.mjs";
contract("SupabaseAdapter", () => Stage.start(), {});
