/**
 * What a team would write without a queue, on Prisma: one interactive transaction per request. The wait for a
 * connection is longer than Prisma's default of 2 s, with which it fails requests at 512 connections.
 */
import { PrismaPg } from '@prisma/adapter-pg'
import { readSettings } from '../../dist/config.js'
import { PrismaClient } from '../../dist/store/generated/client.js'
import { serve } from './server.mjs'

const { DATABASE_URL } = readSettings(process.env, ['DATABASE_URL'])
const adapter = new PrismaPg({ connectionString: DATABASE_URL, max: Number(process.env['BENCH_POOL'] ?? 10) })
const prisma = new PrismaClient({ adapter, transactionOptions: { maxWait: 10_000, timeout: 10_000 } })

const select = { sequence: true, changeDate: true, resourceOwner: true }

const detailsOf = (/** @type {{ sequence: bigint, changeDate: Date, resourceOwner: string }} */ session) => ({
  sequence: String(session.sequence),
  changeDate: session.changeDate.toISOString(),
  resourceOwner: session.resourceOwner,
})

await serve({
  end: (id, { actor, sessionIssuers }) =>
    prisma.$transaction(async (tx) => {
      const now = new Date()
      const issuer = { in: [...sessionIssuers] }
      const [ended] = await tx.session.updateManyAndReturn({
        where: { id, issuer, state: 'active' },
        data: { state: 'terminated', sequence: { increment: 1 }, changeDate: now, terminatedAt: now },
        select,
      })
      if (ended === undefined) {
        const known = await tx.session.findFirst({ where: { id, issuer }, select })
        return known === null ? null : detailsOf(known)
      }
      await tx.sessionEvent.create({
        data: {
          sessionId: id,
          sequence: ended.sequence,
          type: 'session.terminated',
          mode: 'logout',
          actorIssuer: actor.issuer,
          actorSubject: actor.subject,
          resourceOwner: ended.resourceOwner,
          createdAt: ended.changeDate,
        },
        select: { position: true },
      })
      return detailsOf(ended)
    }),
  stop: () => prisma.$disconnect(),
})
