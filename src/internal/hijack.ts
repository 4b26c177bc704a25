/**
 * Connections that left their server: WebSockets, other upgrades, tunnels. They have no end of their own, so whoever
 * handles one is asked to end it, and then its peer has `closeTimeout` to answer. One that nobody handles has no longer.
 */
import type { Adopter, Connection } from "./connection.ts"
import { type Held, work } from "./held.ts"
import { now } from "./sweep.ts"
import type { Tally } from "./tally.ts"
import { cut } from "./text.ts"

/** What its listener knows of the work on a connection that has left it. */
export class Hijack {
  readonly since: number = now()
  name: string

  constructor(name: string) {
    this.name = name
  }
}

export class Hijacks {
  size = 0
  private readonly tally: Tally

  constructor(tally: Tally) {
    this.tally = tally
  }

  /** It has left. */
  take(connection: Connection, name: string): void {
    connection.hijacked = true
    connection.work = new Hijack(name)
    connection.stir()
    this.size++
  }

  /** The drain begins, or has begun. */
  letGo(connection: Connection): void {
    if (connection.isAdopted) connection.end()
    else connection.closeSoon()
  }

  /** It has closed; `counts`, during a drain that has not been cut. */
  closed(connection: Connection, counts: boolean): void {
    this.size--
    if (!counts) return
    if (connection.expired && !connection.answered) this.cut(connection)
    else this.tally.drained++
  }

  /** It is about to be destroyed. */
  cut(connection: Connection): void {
    this.tally.note(cut(work(hijacked(connection))))
  }
}

export const hijacked = (connection: Connection): Held => {
  const { name, since } = connection.work instanceof Hijack ? connection.work : new Hijack("connection")
  return { what: name, connection, since, fiber: connection.fiber }
}

/** The handler of a hijacked connection has ended. Where it was told to, the peer has `closeTimeout` to answer. */
export const handled = (connection: Connection, adopter: Adopter, told: boolean): void => {
  if (connection.release(adopter) && (told || connection.owner.draining)) connection.closeSoon()
}
