/**
 * A kind of client: busy on one of the listeners until nothing is left to do.
 *
 * Each makes for itself what it expects, and counts and hashes what it gets: none believes what the server says of itself.
 */
import type { Effect } from "effect"
import type { Lost } from "./wire.ts"

/** Where to find the listeners. */
export type Servers = Readonly<Record<"http" | "tcp" | "unix" | "rpc", URL>>

export interface Client {
  readonly name: string
  /** Runs `underWay` in the middle, once or more, and gives what it saw. */
  readonly run: (servers: Servers, underWay: Effect.Effect<unknown>) => Effect.Effect<string, Lost>
}
