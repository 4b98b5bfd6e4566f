# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY mappings mappings
RUN python -m venv /opt/alert-gateway \
    && /opt/alert-gateway/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
    && /opt/alert-gateway/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/alert-gateway --create-home alert-gateway
COPY --from=build /opt/alert-gateway /opt/alert-gateway
ENV PATH=/opt/alert-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_STATE_HOME=/var/lib
USER 10001
VOLUME /var/lib/alert-gateway
EXPOSE 8080
# On all interfaces, as a container is reached from elsewhere: refused as long as an inbound has no keys.
ENTRYPOINT ["alert-gateway"]
CMD ["serve", "--config", "/etc/alert-gateway/gateway.toml", "--listen", "0.0.0.0:8080"]
# Whoever answers at all is alive: with an `admin` of its own this address knows no /-/healthy, with `tls` no plain HTTP.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import socket; s = socket.create_connection(('127.0.0.1', 8080), 2); s.sendall(b'GET /-/healthy HTTP/1.0\\r\\n\\r\\n'); s.recv(1)"]
STOPSIGNAL SIGTERM
