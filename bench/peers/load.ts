/**
 * Loads one of the peers. They are no dependencies of the project: `npm ci --prefix bench/peers` installs them, and types
 * and lint do not need them.
 */
import { createRequire } from "node:module"

const require = createRequire(new URL("package.json", import.meta.url))

export const load = <A>(name: string): A => require(name) as A
