/**
 * What is sent: bytes that both sides make for themselves from a seed they share, so that neither has to believe the
 * other.
 */
import { createHash } from "node:crypto"

const seed = process.env["KMS_DEMO_SEED"] ?? ""

/** The content that goes by a name. */
export const content = (name: string, size: number): Buffer =>
  createHash("shake256", { outputLength: size }).update(`${seed} ${name}`).digest()

export const sha256 = (data: Uint8Array | string): string => createHash("sha256").update(data).digest("hex")

/** What comes in pieces is cut into this many, one every so often: two seconds in all. */
export const pieces = 20
export const every = "100 millis"
export const pieceSize = 64 * 1024

export const piece = (name: string, index: number): Buffer => content(`${name} ${index}`, pieceSize)

/** All pieces in one. */
export const whole = (name: string): Buffer =>
  Buffer.concat(Array.from({ length: pieces }, (_, index) => piece(name, index)))
