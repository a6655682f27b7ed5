# Curfew for your own servers. The image carries no settings; see docker-compose.yml for the ones that it needs.
FROM node:20-slim AS build
WORKDIR /curfew
# Generating the database client needs no schema engine; naming a binary that exists keeps Prisma from downloading one.
ENV PRISMA_SCHEMA_ENGINE_BINARY=/usr/local/bin/node
COPY package.json package-lock.json ./
RUN npm ci --no-fund --no-audit
COPY tsconfig.json prisma.config.ts ./
COPY prisma prisma
COPY src src
RUN npx prisma generate && npx tsc -p . && rm -r dist/dev

FROM node:20-slim AS packages
WORKDIR /curfew
COPY package.json package-lock.json ./
# Prisma's client carries a query compiler for each database that it knows; 50 MB of them are not ours.
RUN npm ci --omit=dev --omit=optional --no-fund --no-audit --ignore-scripts \
  && find node_modules/@prisma/client/runtime -name '*.mysql.*' -o -name '*.sqlite.*' -o -name '*.sqlserver.*' -o -name '*.cockroachdb.*' | xargs rm

FROM node:20-slim
ENV NODE_ENV=production
WORKDIR /curfew
COPY --from=packages /curfew/node_modules node_modules
COPY --from=build /curfew/dist dist
COPY prisma/migrations prisma/migrations
COPY package.json ./
# The image's own unprivileged account; nothing here is written to.
USER node
# Loopback would be the container's own. The operations port stays on loopback unless OPS_HOST says otherwise.
ENV HOST=0.0.0.0 PORT=8080
EXPOSE 8080 9090
# A worker has no API port; every role answers on its operations port.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT || 9090}/healthz`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "--enable-source-maps", "dist/cli.js"]
CMD ["serve"]
