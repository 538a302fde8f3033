// SupabaseAdapter on real PostgreSQL and PostgREST, with the old backend's routes (see ./supabase): the contract of all
// adapters, where the old backend differs, and its dirt.

import { contract, refused } from "./contract.mjs";
import { differences } from "./supabase/differences.mjs";
import { dirt } from "./supabase/dirt.mjs";
import { Stage } from "./supabase/stage.mjs";

contract("SupabaseAdapter", () => Stage.start(), differences);
dirt(() => Stage.start(), refused);
