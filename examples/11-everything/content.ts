/**
 * What the rows of the database are: bytes that whoever knows the seed can make for itself, so that no client has to
 * believe the server.
 */
import { createHash } from "node:crypto"

/** The content that goes by a name. */
export const content = (name: string, size: number): Buffer =>
  createHash("shake256", { outputLength: size })
    .update(`${process.env["KMS_DEMO_SEED"] ?? ""} ${name}`)
    .digest()

export const sha256 = (data: Uint8Array | string): string => createHash("sha256").update(data).digest("hex")

/** What comes in pieces is cut into this many. Over HTTP there is one every so often: two seconds in all. */
export const pieces = 20
export const every = "100 millis"
export const pieceSize = 64 * 1024

export const piece = (name: string, index: number): Buffer => content(`${name} ${index}`, pieceSize)

/** All pieces in one. */
export const whole = (name: string): Buffer =>
  Buffer.concat(Array.from({ length: pieces }, (_, index) => piece(name, index)))
