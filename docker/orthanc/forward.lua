-- Orthanc: send each CT series to the node over one association, once it has stopped growing.
-- What the node returns has another modality (SEG, SR) and stays.

function OnStableSeries(seriesId, tags, metadata)
  if tags['Modality'] == 'CT' then
    print('CT series ' .. seriesId .. ' goes to dicom-node')
    SendToModality(seriesId, 'dicom-node')
  end
end
