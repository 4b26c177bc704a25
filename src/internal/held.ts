/**
 * What is in flight on connections, and how it is told of.
 */
import type * as Fiber from "effect/Fiber"
import { type Connection, endpoint } from "./connection.ts"
import type { Work } from "./report.ts"
import { now } from "./sweep.ts"

/** Something that has not ended. There may be thousands of them, of which only the oldest are told of. */
export interface Held {
  readonly what: string
  readonly connection: Connection
  readonly since: number
  /** What handles it, where that is known. */
  readonly fiber?: Fiber.Fiber<unknown, unknown> | undefined
}

export const oldest = (all: ReadonlyArray<Held>, limit: number): ReadonlyArray<Held> =>
  Array.from(all)
    .sort((a, b) => a.since - b.since)
    .slice(0, limit)

/** For whoever is told. Who is at the other end takes the system a moment to say. */
export const work = ({ connection, since, what }: Held): Work => ({ what, peer: peer(connection), age: now() - since })

/** Who is at the other end of a connection. */
export const peer = ({ carrier, peer }: Connection): string =>
  endpoint(carrier) ?? peer ?? (carrier.destroyed ? "a peer that has gone" : "a local socket")
