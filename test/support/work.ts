/**
 * The work that a peer may ask of any kind of listener: an answer at once, one that is held until it is let go, such a one
 * with which the conversation ends, one of 8 MB with which it ends, too, and such a one that is left behind.
 */
import { Effect } from "effect"
import { createHash, randomFillSync } from "node:crypto"
import type { Server } from "node:net"
import { Stage } from "./stage.ts"

export const works = ["ping", "slow", "last", "large", "left"] as const

export type Work = (typeof works)[number]

/** Whether the conversation ends with the answer. */
export const isLast = (work: Work): boolean => work === "last" || work === "large" || work === "left"

/** 8 MB of text, and their hash. */
export const large = (): { readonly text: string; readonly hash: string } => {
  made ??= make()
  return made
}
let made: ReturnType<typeof make> | undefined
const make = () => {
  const text = randomFillSync(Buffer.allocUnsafe(6 * 1024 * 1024)).toString("base64url")
  return { text, hash: createHash("sha256").update(text).digest("hex") }
}

/** A stage for that, on which anything may listen. */
export class WorkStage extends Stage {
  /** Where to listen, for what listens on a path. */
  place = ""
  /** Who listens, where that is no server of HTTP. */
  bound: Server | undefined
  /** The drain has begun, as a shutdown tells. */
  begun = false
  /** Upgrades that are asked for wait for the latch. */
  holdsUpgrades = false

  get listening(): Server {
    return this.bound ?? this.server
  }

  /** Does a piece of work, and gives the answer to it. */
  work(work: Work): Effect.Effect<string> {
    return Effect.suspend(() => {
      this.enter(work)
      if (work === "ping") return Effect.succeed("pong")
      if (work === "large" || work === "left") return Effect.succeed(large().text)
      return Effect.as(
        Effect.andThen(
          this.latch.await,
          Effect.sync(() => this.leave(work))
        ),
        work
      )
    })
  }
}
