"""The whole life of a disk, by the client that a generator has made of the contract.

Arguments: the address of the service, a token, and a folder for files. The package `client` is beside the files.
"""

import subprocess
import sys

address, token, folder = sys.argv[1:]
sys.path.insert(0, folder)

from client import AuthenticatedClient
from client.api.backups import add_target, list_backups
from client.api.devices import add_snapshot, attach_device, detach_device, get_device, list_snapshots
from client.api.exports import get_export
from client.api.jobs import add_job, get_job, get_job_log
from client.api.service import get_service
from client.models import (
    AttachedExport,
    BackupJobRequest,
    BackupJobRequestType,
    BackupParameters,
    CreateRequest,
    CreatingAttachRequest,
    Device,
    DirectoryTargetRequest,
    DirectoryTargetRequestType,
    Export,
    Job,
    MergeJobRequest,
    MergeJobRequestType,
    NewDisk,
    Problem,
    RestoreJobRequest,
    RestoreJobRequestType,
    RestoreParameters,
    Slug,
    SnapshotMade,
    SnapshotRequest,
)

SIZE = 16 << 20


def client_with(secret):
    return AuthenticatedClient(base_url=address, token=secret, timeout=90)


def file(name, byte=None):
    path = f"{folder}/{name}"
    if byte is not None:
        with open(path, "wb") as made:
            made.write(bytes([byte]) * SIZE)
    return path


def copy(source, destination):
    subprocess.run(["nbdcopy", "--flush", source, destination], check=True)


def content(uri):
    copy(uri, file("read"))
    with open(file("read"), "rb") as read:
        return read.read()


def uri(name):
    export = get_export.sync(name, client=client)
    assert isinstance(export, Export), export
    return export.uris[0]


def created(device_id):
    device = attach_device.sync(
        client=client,
        body=CreatingAttachRequest(
            id=device_id,
            create=CreateRequest(directory=device_id, size=SIZE),
            export=AttachedExport(name=device_id),
        ),
    )
    assert isinstance(device, Device), device
    return device


def done(request):
    job = add_job.sync(client=client, body=request, prefer="wait=60")
    assert isinstance(job, Job), job
    while job.finished_at is None:
        job = get_job.sync(job.id, client=client, after_revision=job.revision, wait=30) or job
    assert job.state.value == "succeeded", job.to_dict()
    assert get_job_log.sync_detailed(job.id, client=client).status_code == 200
    return job


client = client_with(token)
assert get_service.sync(client=client).product.value == "ploopd"
stranger = get_service.sync(client=client_with("plp_" + "A" * 43))
assert isinstance(stranger, Problem) and stranger.code == Slug.UNAUTHORIZED, stranger

assert created("disk").size == SIZE
copy(file("first", 7), uri("disk"))
snapshot = add_snapshot.sync("disk", client=client, body=SnapshotRequest(name="monday"))
assert isinstance(snapshot, SnapshotMade) and snapshot.name == "monday", snapshot
copy(file("second", 9), uri("disk"))

add_target.sync(
    client=client,
    body=DirectoryTargetRequest(
        name="nas", type_=DirectoryTargetRequestType.DIRECTORY, path="main:backups"
    ),
)
backup = done(
    BackupJobRequest(
        type_=BackupJobRequestType.BACKUP, device="disk", params=BackupParameters(target="nas")
    )
).result["backup"]
assert [point.id for point in list_backups.sync("nas", client=client).items] == [backup]
done(
    RestoreJobRequest(
        type_=RestoreJobRequestType.RESTORE,
        params=RestoreParameters(
            target="nas", backup=backup, to=NewDisk(id="copy", directory="copy", export="copy")
        ),
    )
)
assert content(uri("copy")) == bytes([9]) * SIZE

done(MergeJobRequest(type_=MergeJobRequestType.MERGE, device="disk"))
assert len(list_snapshots.sync("disk", client=client).items) == 0
assert content(uri("disk")) == bytes([9]) * SIZE

device = get_device.sync("disk", client=client)
stale = detach_device.sync("disk", client=client, if_match=f'"{device.revision - 1}"')
assert isinstance(stale, Problem) and stale.code == Slug.PRECONDITION_FAILED, stale
for name in ("disk", "copy"):
    assert detach_device.sync_detailed(name, client=client).status_code == 204
gone = get_device.sync("disk", client=client)
assert isinstance(gone, Problem) and gone.code == Slug.DEVICE_NOT_FOUND and gone.remedy, gone
print("done")
