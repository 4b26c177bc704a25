/**
 * Connections that left their server: WebSockets, other upgrades, tunnels. They have no end of their own, so whoever
 * handles one is asked to end it, and then its peer has `closeTimeout` to answer. One that nobody handles has no longer.
 */
import type { Adopter, Connection } from "./connections.ts"
import type { Tally } from "./tally.ts"

export class Hijacks {
  size = 0
  private readonly tally: Tally

  constructor(tally: Tally) {
    this.tally = tally
  }

  /** It has left. */
  take(connection: Connection): void {
    connection.hijacked = true
    connection.work = undefined
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
    if (connection.expired && !connection.answered) this.tally.note(title(connection))
    else this.tally.drained++
  }

  /** It is about to be destroyed. */
  cut(connection: Connection): void {
    this.tally.note(title(connection))
  }
}

const title = (connection: Connection): string => `upgraded connection from ${peer(connection)}`

/** Who is at the other end of a connection. */
export const peer = ({ carrier, peer }: Connection): string => carrier.remoteAddress ?? peer ?? "a local socket"

/** The handler of a hijacked connection has ended. Where it was told to, the peer has `closeTimeout` to answer. */
export const handled = (connection: Connection, adopter: Adopter, told: boolean): void => {
  if (connection.release(adopter) && (told || connection.owner.draining)) connection.closeSoon()
}
